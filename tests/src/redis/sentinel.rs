//! A Redis master and replica with sentinels, for tests.

use std::fmt::Write;
use std::process::Command;

use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use super::commands::{answers, ask, until};
use super::member::{self, Member, in_network_of_host};
use crate::server::{self, Recipe};
use crate::supervisor::Signals;

/// The name under which the sentinels know the master.
const NAME: &str = "main";
/// The password of the master and the replica, for clients and for each other.
const PASSWORD: &str = "secret";
/// The password of the sentinels, for clients and for each other.
const SENTINEL_PASSWORD: &str = "who-goes-there";

/// A master and its replica, with three sentinels. If the master dies, the sentinels promote the replica within seconds.
#[derive(Debug)]
pub struct Sentinel {
    pair: [Member; 2],
    sentinels: Vec<server::Server<Watch>>,
}

impl Sentinel {
    /// Starts master, replica and sentinels, and waits until they know each other.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start() -> Self {
        let options = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
        let pair = [member::start(&options, false).await, member::start(&options, false).await];
        let [master, replica] = [pair[0].port(), pair[1].port()];
        until(replica, &with(PASSWORD, &format!("REPLICAOF 127.0.0.1 {master}")), &["+OK\r\n+OK"]).await;
        until(replica, &with(PASSWORD, "INFO replication"), &["master_link_status:up"]).await;
        // The replica must be online before a sentinel starts, because a sentinel checks at its start and then every 10 s.
        until(master, &with(PASSWORD, "INFO replication"), &["state=online"]).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let watch = || Watch { master };
            sentinels.push(server::Server::start(watch).await.unwrap_or_else(|error| panic!("{error}")));
        }
        for sentinel in &sentinels {
            let known = ["num-slaves\r\n$1\r\n1\r\n", "num-other-sentinels\r\n$1\r\n2\r\n"];
            until(sentinel.port(), &with(SENTINEL_PASSWORD, &format!("SENTINEL MASTER {NAME}")), &known).await;
        }
        Self { pair, sentinels }
    }

    /// The address: all sentinels, their password, and the password of master and replica.
    #[must_use]
    pub fn url(&self) -> String {
        let first = self.sentinels[0].port();
        let mut url = format!(
            "redis-sentinel://:{PASSWORD}@127.0.0.1:{first}\
             ?sentinelServiceName={NAME}&sentinelPassword={SENTINEL_PASSWORD}"
        );
        for sentinel in &self.sentinels[1..] {
            let _ = write!(url, "&node=127.0.0.1:{}", sentinel.port());
        }
        url
    }

    /// The port of the server that is the master according to the sentinels.
    ///
    /// # Panics
    /// When the sentinels do not report a master.
    pub async fn master(&self) -> u16 {
        let question = with(SENTINEL_PASSWORD, &format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}"));
        let reply = ask(self.sentinels[0].port(), &question).await.expect("a reply");
        // After +OK, the reply is a list of two texts. Each text follows its length.
        reply.lines().nth(5).and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The port of the replica.
    pub async fn replica(&self) -> u16 {
        let master = self.master().await;
        self.pair.iter().map(Member::port).find(|port| *port != master).expect("a server that is not the master")
    }

    /// Sends `commands`, one per line, to the master or the replica at `port`, and returns its reply.
    ///
    /// # Errors
    /// When the server does not reply within 5 s.
    pub async fn ask(&self, port: u16, commands: &str) -> Result<String, String> {
        let reply = ask(port, &with(PASSWORD, commands)).await?;
        Ok(reply.strip_prefix("+OK\r\n").unwrap_or(&reply).to_owned())
    }

    /// Lets the sentinels promote the replica to master, like an operator.
    pub async fn fail_over(&self) {
        let command = with(SENTINEL_PASSWORD, &format!("SENTINEL FAILOVER {NAME}"));
        until(self.sentinels[0].port(), &command, &["+OK\r\n+OK"]).await;
    }

    /// Kills the master. The sentinels notice this after some seconds.
    ///
    /// # Panics
    /// When the sentinels report a master that is not part of this pair.
    pub async fn crash_master(&self) {
        let master = self.master().await;
        self.pair.iter().find(|server| server.port() == master).expect("a server of the pair").crash().await;
    }
}

fn with(password: &str, commands: &str) -> String {
    format!("AUTH {password}\r\n{commands}")
}

#[derive(Debug)]
struct Watch {
    master: u16,
}

impl Watch {
    /// The lines of the configuration file of a sentinel. The sentinel rewrites this file.
    fn configuration(&self) -> [String; 6] {
        [
            format!("requirepass {SENTINEL_PASSWORD}"),
            format!("sentinel sentinel-pass {SENTINEL_PASSWORD}"),
            format!("sentinel monitor {NAME} 127.0.0.1 {} 2", self.master),
            format!("sentinel auth-pass {NAME} {PASSWORD}"),
            format!("sentinel down-after-milliseconds {NAME} 1000"),
            format!("sentinel failover-timeout {NAME} 10000"),
        ]
    }
}

impl Recipe for Watch {
    const NAME: &'static str = "sentinel";
    const PORT: u16 = 26_379;
    const SIGNALS: Signals = Signals { stop: "TERM", crash: "KILL" };

    fn container(&self, port: u16) -> ContainerRequest<GenericImage> {
        let script = "printf '%s\\n' \"$@\" >/tmp/sentinel.conf && exec redis-server /tmp/sentinel.conf --sentinel";
        let address = ["bind 127.0.0.1".to_owned(), format!("port {port}")];
        let command = ["sh", "-c", script, "sentinel"].map(str::to_owned).into_iter();
        in_network_of_host(GenericImage::new("redis", "8").with_cmd(command.chain(address).chain(self.configuration())))
    }

    fn native(&self, command: &mut Command) {
        command.args(self.configuration());
    }

    async fn answers(&self, port: u16) -> Result<(), String> {
        answers(port).await
    }
}

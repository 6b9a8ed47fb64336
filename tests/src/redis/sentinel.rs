//! Redis behind Sentinel.

use std::fmt::Write;
use std::process::Command;

use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use super::commands::{answers, ask, until};
use super::member::{self, Member, in_network_of_host};
use crate::server::{self, Recipe};
use crate::supervisor::Signals;

/// What the sentinels call the pair.
const NAME: &str = "main";
/// What the pair asks of clients, and of each other.
const PASSWORD: &str = "secret";
/// What the sentinels ask of clients, and of each other.
const WATCHWORD: &str = "who-goes-there";

/// A master and its replica, with three sentinels that promote the replica within seconds of the master's death.
#[derive(Debug)]
pub struct Sentinel {
    pair: [Member; 2],
    sentinels: Vec<server::Server<Watch>>,
}

impl Sentinel {
    /// Starts one and waits until all of it is well.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start() -> Self {
        let options = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
        let pair = [member::start(&options, false).await, member::start(&options, false).await];
        let [master, replica] = [pair[0].port(), pair[1].port()];
        until(replica, &with(PASSWORD, &format!("REPLICAOF 127.0.0.1 {master}")), &["+OK\r\n+OK"]).await;
        until(replica, &with(PASSWORD, "INFO replication"), &["master_link_status:up"]).await;
        // first, as a sentinel looks at once and then every ten seconds
        until(master, &with(PASSWORD, "INFO replication"), &["state=online"]).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let watch = || Watch { master };
            sentinels.push(server::Server::start(watch).await.unwrap_or_else(|error| panic!("{error}")));
        }
        for sentinel in &sentinels {
            let known = ["num-slaves\r\n$1\r\n1\r\n", "num-other-sentinels\r\n$1\r\n2\r\n"];
            until(sentinel.port(), &with(WATCHWORD, &format!("SENTINEL MASTER {NAME}")), &known).await;
        }
        Self { pair, sentinels }
    }

    /// Its address: all sentinels, their password, and that of the pair.
    #[must_use]
    pub fn url(&self) -> String {
        let first = self.sentinels[0].port();
        let mut url = format!(
            "redis-sentinel://:{PASSWORD}@127.0.0.1:{first}?sentinelServiceName={NAME}&sentinelPassword={WATCHWORD}"
        );
        for sentinel in &self.sentinels[1..] {
            let _ = write!(url, "&node=127.0.0.1:{}", sentinel.port());
        }
        url
    }

    /// The port of the server that the sentinels take for the master.
    ///
    /// # Panics
    /// When they do not say.
    pub async fn master(&self) -> u16 {
        let question = with(WATCHWORD, &format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}"));
        let place = ask(self.sentinels[0].port(), &question).await.expect("an answer");
        // after +OK, a list of two texts, each after its length
        place.lines().nth(5).and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The port of the other server.
    pub async fn replica(&self) -> u16 {
        let master = self.master().await;
        self.pair.iter().map(Member::port).find(|port| *port != master).expect("one of the two is no master")
    }

    /// What the server at `port` of the pair answers to `commands`, one a line.
    ///
    /// # Errors
    /// When it does not answer within seconds.
    pub async fn ask(&self, port: u16, commands: &str) -> Result<String, String> {
        let answer = ask(port, &with(PASSWORD, commands)).await?;
        Ok(answer.strip_prefix("+OK\r\n").unwrap_or(&answer).to_owned())
    }

    /// Has the sentinels make the replica the master, as an operator would.
    pub async fn fail_over(&self) {
        until(self.sentinels[0].port(), &with(WATCHWORD, &format!("SENTINEL FAILOVER {NAME}")), &["+OK\r\n+OK"]).await;
    }

    /// Kills the master; the sentinels notice by and by.
    ///
    /// # Panics
    /// When it is none of the pair.
    pub async fn crash_master(&self) {
        let master = self.master().await;
        self.pair.iter().find(|server| server.port() == master).expect("one of the pair").crash().await;
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
    /// The lines of its configuration, which it rewrites by itself.
    fn configuration(&self) -> [String; 6] {
        [
            format!("requirepass {WATCHWORD}"),
            format!("sentinel sentinel-pass {WATCHWORD}"),
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
        let place = ["bind 127.0.0.1".to_owned(), format!("port {port}")];
        let command = ["sh", "-c", script, "sentinel"].map(str::to_owned).into_iter();
        in_network_of_host(GenericImage::new("redis", "8").with_cmd(command.chain(place).chain(self.configuration())))
    }

    fn native(&self, command: &mut Command) {
        command.args(self.configuration());
    }

    async fn answers(&self, port: u16) -> Result<(), String> {
        answers(port).await
    }
}

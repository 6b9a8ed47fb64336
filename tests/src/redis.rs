//! Redis: one server, a cluster, or a pair that sentinels watch.

mod cluster;
mod member;
mod sentinel;

use std::process::Command;
use std::time::Duration;

use testcontainers::{ContainerRequest, GenericImage, ImageExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use cluster::Cluster;
pub use sentinel::Sentinel;

use crate::keeper::Signals;
use crate::server::{self, Recipe};
use crate::shared::{self, Shared};

const VARIABLE: &str = "NETAGG_TEST_REDIS_URL";

/// The address of the shared Redis. Tests share its keys too: make them unique, and flush nothing.
///
/// # Panics
/// When none can be had.
pub async fn url() -> String {
    static SERVER: Shared<SharedServer> = Shared::new();
    match shared::get(&SERVER, SharedServer::find).await {
        SharedServer::Given(url) => url.clone(),
        SharedServer::Started(server) => address(server.port()),
    }
}

enum SharedServer {
    Given(String),
    Started(server::Server<Redis>),
}

impl SharedServer {
    async fn find() -> Result<Self, String> {
        if let Some(url) = shared::from_environment(VARIABLE) {
            server::announce("redis", &format!("address from {VARIABLE}"));
            return Ok(Self::Given(url));
        }
        server::Server::start(|| Redis).await.map(Self::Started)
    }
}

/// A server of the test's own, to be stopped, frozen and flushed. It keeps nothing over a restart.
#[derive(Debug)]
pub struct Server(server::Server<Redis>);

impl Server {
    /// Starts one.
    ///
    /// # Panics
    /// When none can be had.
    pub async fn start() -> Self {
        Self(server::Server::start(|| Redis).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Its address; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        address(self.0.port())
    }

    /// Its TCP port on this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// Stops it cleanly.
    pub async fn stop(&self) {
        self.0.stop().await;
    }

    /// Kills it.
    pub async fn crash(&self) {
        self.0.crash().await;
    }

    /// Starts it again, empty, and waits until it answers.
    pub async fn start_again(&self) {
        self.0.start_again().await;
    }

    /// Freezes it: connections stay open and nothing answers.
    pub async fn pause(&self) {
        self.0.pause().await;
    }

    /// Ends [`Self::pause`].
    pub async fn resume(&self) {
        self.0.resume().await;
    }
}

#[derive(Debug)]
struct Redis;

impl Recipe for Redis {
    const NAME: &'static str = "redis";
    const PORT: u16 = 6379;
    const SIGNALS: Signals = Signals { stop: "TERM", crash: "KILL" };

    fn container(&self, _port: u16) -> ContainerRequest<GenericImage> {
        GenericImage::new("redis", "8").with_cmd(["redis-server", "--save", "", "--appendonly", "no"])
    }

    fn native(&self, _command: &mut Command) {}

    async fn answers(&self, port: u16) -> Result<(), String> {
        answers(port).await
    }
}

/// What the server at `port` of this machine answers to `commands`, one a line.
///
/// # Errors
/// When it does not answer within seconds.
pub async fn ask(port: u16, commands: &str) -> Result<String, String> {
    const END: &str = "+PONG\r\n";
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("{commands}\r\nPING\r\n").as_bytes()).await?;
        let (mut answer, mut buffer) = (String::new(), [0; 4096]);
        loop {
            match stream.read(&mut buffer).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => answer.push_str(&String::from_utf8_lossy(&buffer[..read])),
            }
            if answer.starts_with(NO_PASSWORD) {
                return Ok(answer);
            }
            if let Some(answer) = answer.strip_suffix(END) {
                return Ok::<_, std::io::Error>(answer.to_owned());
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(5), asking).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(elapsed) => Err(elapsed.to_string()),
    }
}

/// How a server begins its answer to who has not said its password.
const NO_PASSWORD: &str = "-NOAUTH";

/// Whether one is ready at `port`, be it for those who know its password.
async fn answers(port: u16) -> Result<(), String> {
    let answer = ask(port, "").await?;
    if answer.is_empty() || answer.starts_with(NO_PASSWORD) { Ok(()) } else { Err(answer) }
}

/// Waits until what the server at `port` answers to `commands` has all of `texts` in it.
async fn until(port: u16, commands: &str, texts: &[&str]) {
    crate::eventually(Duration::from_secs(60), commands, async || {
        let answer = ask(port, commands).await?;
        if texts.iter().all(|text| answer.contains(text)) { Ok(()) } else { Err(answer) }
    })
    .await;
}

fn address(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

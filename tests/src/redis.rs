//! Redis: a single server, a cluster, or a master and a replica that sentinels watch.

mod cluster;
mod commands;
mod member;
mod sentinel;

use std::process::Command;

use testcontainers::{ContainerRequest, GenericImage, ImageExt};

pub use cluster::Cluster;
use commands::answers;
pub use commands::ask;
pub use sentinel::Sentinel;

use crate::server::{self, Recipe};
use crate::shared::{self, Shared};
use crate::supervisor::Signals;

const VARIABLE: &str = "NETAGG_TEST_REDIS_URL";

/// The address of the shared Redis. Tests also share its keys: use unique keys, and never flush the server.
///
/// # Panics
/// When no server can be found or started.
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

/// A server that only one test uses. The test may stop, freeze and flush it. A restart loses all data.
#[derive(Debug)]
pub struct Server(server::Server<Redis>);

impl Server {
    /// Starts a server.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start() -> Self {
        Self(server::Server::start(|| Redis).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// The address of the server. It stays the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        address(self.0.port())
    }

    /// The TCP port of the server on this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// Stops the server cleanly.
    pub async fn stop(&self) {
        self.0.stop().await;
    }

    /// Kills the server.
    pub async fn crash(&self) {
        self.0.crash().await;
    }

    /// Starts the server again without data, and waits until it responds.
    pub async fn start_again(&self) {
        self.0.start_again().await;
    }

    /// Freezes the server: connections stay open, but the server does not respond.
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

fn address(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

//! Redis: one server, a cluster, or a pair that sentinels watch.

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

/// The address of the shared Redis. Tests share its keys too: make them unique, and flush nothing.
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

/// A server of the test's own, to be stopped, frozen and flushed. It keeps nothing over a restart.
#[derive(Debug)]
pub struct Server(server::Server<Redis>);

impl Server {
    /// Starts one.
    ///
    /// # Panics
    /// When no server can be found or started.
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

fn address(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

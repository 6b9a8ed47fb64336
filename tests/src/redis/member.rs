//! Redis servers of a group. They tell each other and their clients the addresses of the group.

use std::process::Command;

use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use crate::port::Port;
use crate::server::{self, Recipe};
use crate::supervisor::Signals;

/// A server of a group.
pub(super) type Member = server::Server<Redis>;

/// Starts a member with these options. A member of a cluster has a second port, for the other members.
pub(super) async fn start(options: &[&str], in_cluster: bool) -> Member {
    let recipe = || Redis {
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        bus: in_cluster.then(Port::reserve),
    };
    server::Server::start(recipe).await.unwrap_or_else(|error| panic!("{error}"))
}

#[derive(Debug)]
pub(super) struct Redis {
    options: Vec<String>,
    bus: Option<Port>,
}

impl Redis {
    /// The port for the other members of a cluster.
    pub(super) fn bus(&self) -> Option<u16> {
        self.bus.as_ref().map(Port::number)
    }

    fn options(&self) -> Vec<String> {
        // Without this option, the master waits seconds for more replicas before it sends its data to a new replica.
        let mut options = ["--repl-diskless-sync-delay", "0"].map(str::to_owned).to_vec();
        options.extend(self.options.iter().cloned());
        if let Some(bus) = &self.bus {
            options.extend(["--cluster-port".to_owned(), bus.number().to_string()]);
        }
        options
    }
}

impl Recipe for Redis {
    const NAME: &'static str = "redis";
    const PORT: u16 = 6379;
    const SIGNALS: Signals = Signals { stop: "TERM", crash: "KILL" };

    fn container(&self, port: u16) -> ContainerRequest<GenericImage> {
        let server = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"];
        let command = server.map(str::to_owned).into_iter().chain([port.to_string()]).chain(self.options());
        in_network_of_host(GenericImage::new("redis", "8").with_cmd(command))
    }

    fn native(&self, command: &mut Command) {
        command.args(self.options());
    }

    async fn answers(&self, port: u16) -> Result<(), String> {
        super::commands::answers(port).await
    }
}

/// Puts a container into the network of the host. The address that a member reports must be valid for other members and for
/// clients, in containers or not.
pub(super) fn in_network_of_host(request: ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage> {
    request.with_network("host")
}

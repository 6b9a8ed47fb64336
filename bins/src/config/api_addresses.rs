//! The addresses on which the API listens.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpListener;

use crate::Failure;
use crate::process::Variables;

pub(super) const API_HTTP_PORT: &str = "API_HTTP_PORT";
pub(super) const API_GRPC_PORT: &str = "API_GRPC_PORT";

pub(super) fn bind_address(variables: &mut Variables, name: &str, meaning: &str) -> IpAddr {
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let parse = |text: &str| text.parse().ok();
    variables
        .parse(name, "127.0.0.1", meaning, "an IP address, such as 127.0.0.1 or 0.0.0.0", parse)
        .unwrap_or(LOOPBACK)
}

/// Reads `API_PAGE`: whether the API serves its page for browsers.
pub fn has_page(variables: &mut Variables) -> bool {
    variables.group("API");
    variables.flag("API_PAGE", true, "a page for browsers at / of the HTTP API")
}

/// The addresses on which the API listens.
#[derive(Clone, Copy, Debug)]
pub struct ApiAddresses {
    /// The address of the gRPC API.
    pub grpc: SocketAddr,
    /// The address of the HTTP API.
    pub http: SocketAddr,
}

impl ApiAddresses {
    /// Reads `API_BIND`, `API_GRPC_PORT` and `API_HTTP_PORT`.
    pub fn read(variables: &mut Variables) -> Self {
        variables.group("API");
        let address = bind_address(variables, "API_BIND", "IP address on which the API listens");
        let grpc = variables.port(API_GRPC_PORT, 9090, "TCP port of the gRPC API");
        let http = variables.port(API_HTTP_PORT, 8000, "TCP port of the HTTP API");
        if grpc == http {
            variables.same([API_HTTP_PORT, API_GRPC_PORT], &http.to_string(), "port");
        }
        Self { grpc: SocketAddr::new(address, grpc), http: SocketAddr::new(address, http) }
    }

    /// Listens on both addresses. Returns the listener of HTTP, then the listener of gRPC.
    ///
    /// # Errors
    /// When an address cannot be bound. The error names its variables.
    pub async fn listen(&self) -> Result<(TcpListener, TcpListener), Failure> {
        let listen = async |address: SocketAddr, variable| {
            TcpListener::bind(address).await.map_err(|error| {
                Failure::Failed(format!("{address} (API_BIND and {variable}) cannot be bound: {error}").into())
            })
        };
        Ok((listen(self.http, API_HTTP_PORT).await?, listen(self.grpc, API_GRPC_PORT).await?))
    }
}

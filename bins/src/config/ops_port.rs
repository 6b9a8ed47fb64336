//! The ops port of a service.

use std::net::{IpAddr, SocketAddr};

use super::api_addresses::{API_GRPC_PORT, API_HTTP_PORT, ApiAddresses, bind_address};
use crate::ops::OpsConfig;
use crate::process::Variables;

/// Reads the address of the ops port of a service, and whether the port serves profiles.
pub fn ops(variables: &mut Variables, name: &str, port: u16) -> OpsConfig {
    variables.group("Health, metrics and profiles (ops port)");
    let address = bind_address(variables, "OPS_BIND", "IP address on which /healthz, /readyz and /metrics are served");
    let address = SocketAddr::new(address, variables.port(name, port, "TCP port of /healthz, /readyz and /metrics"));
    let pprof =
        variables.flag("PPROF_ENABLED", true, "serve CPU and heap profiles under /debug/pprof on the same port");
    OpsConfig { address, pprof }
}

/// Reads the address of the ops port of the API. Its port must differ from the ports for HTTP and gRPC.
pub fn api_ops(variables: &mut Variables, addresses: &ApiAddresses, port: u16) -> OpsConfig {
    const NAME: &str = "PPROF_PORT_API";
    let ops = ops(variables, NAME, port);
    for (address, name) in [(addresses.http, API_HTTP_PORT), (addresses.grpc, API_GRPC_PORT)] {
        if ops.address.port() == address.port() && overlap(ops.address.ip(), address.ip()) {
            variables.same([NAME, name], &address.port().to_string(), "port");
        }
    }
    ops
}

/// Whether the same port cannot be bound at both addresses.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    // `::` also accepts IPv4 connections.
    let includes = |all: IpAddr, address: IpAddr| all.is_unspecified() && (all.is_ipv6() || address.is_ipv4());
    a == b || includes(a, b) || includes(b, a)
}

//! The ops port of a service.

use std::net::{IpAddr, SocketAddr};

use super::api_addresses::{API_GRPC_PORT, API_HTTP_PORT, ApiAddresses, bind_address};
use crate::ops::OpsConfig;
use crate::process::Variables;

/// Where the ops port of a service listens, and what it tells.
pub fn ops(variables: &mut Variables, name: &str, port: u16) -> OpsConfig {
    let address = bind_address(variables, "OPS_BIND", "address of the ops port (/healthz, /readyz, /metrics)");
    let address = SocketAddr::new(address, variables.port(name, port, "the ops port"));
    let pprof = variables.flag("PPROF_ENABLED", true, "whether the ops port gives profiles (/debug/pprof)");
    OpsConfig { address, pprof }
}

/// Where the ops port of the API listens: on another port than its clients' two.
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

/// Whether one port cannot be bound at both addresses.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    // `::` takes connections of IPv4, too.
    let includes = |all: IpAddr, address: IpAddr| all.is_unspecified() && (all.is_ipv6() || address.is_ipv4());
    one == other || includes(one, other) || includes(other, one)
}

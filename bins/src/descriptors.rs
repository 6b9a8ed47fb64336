//! The file descriptors that each part of a service needs. They are set aside before anything is opened.

use netagg_api::ApiLimits;

use crate::Failure;
use crate::process::descriptors::{Need, set_aside};

/// The descriptors of the Kafka clients. A client keeps a connection and a pipe for each broker that it needs.
pub const KAFKA: Need = Need { of: "Kafka", descriptors: 128 };

/// The descriptors of `connections` connections to PostgreSQL.
pub fn postgres(connections: u32) -> Need {
    Need { of: "PostgreSQL", descriptors: connections as usize }
}

/// The descriptors of a cache with `connections` connections to each node. A cluster has several nodes.
pub fn redis(connections: usize) -> Need {
    const NODES: usize = 8;
    Need { of: "Redis", descriptors: NODES * connections }
}

/// The limits of an API whose two ports share the remaining descriptors, half for each port.
///
/// # Errors
/// [`Failure::Usage`] if too few descriptors are left for the ports.
pub fn api_limits(needs: &[Need]) -> Result<ApiLimits, Failure> {
    /// The smallest useful number of connections of a port.
    const FEWEST: usize = 16;
    let left = set_aside(needs, 2 * FEWEST + ApiLimits::HEALTH_CONNECTIONS)?;
    let mut limits = ApiLimits::default();
    limits.max_connections = limits.max_connections.min((left - ApiLimits::HEALTH_CONNECTIONS) / 2);
    Ok(limits)
}

//! File descriptors, shared out before anything is opened.

use netagg_api::ApiLimits;

use crate::Failure;
use crate::process::descriptors::{Need, set_aside};

/// For the clients of Kafka, which keep a connection and a pipe for each broker that they need.
pub const KAFKA: Need = Need { of: "Kafka", descriptors: 128 };

/// For this many connections to PostgreSQL.
pub fn postgres(connections: u32) -> Need {
    Need { of: "PostgreSQL", descriptors: connections as usize }
}

/// For a cache with this many connections to each node; a cluster has several.
pub fn redis(connections: usize) -> Need {
    const NODES: usize = 8;
    Need { of: "Redis", descriptors: NODES * connections }
}

/// Limits of an API with as many connections as there are descriptors for: half for each of its two ports.
///
/// # Errors
/// [`Failure::Usage`] if the ports would be of no use.
pub fn api_limits(needs: &[Need]) -> Result<ApiLimits, Failure> {
    /// The fewest connections that a port is of use with.
    const FEWEST: usize = 16;
    let left = set_aside(needs, 2 * FEWEST + ApiLimits::HEALTH_CONNECTIONS)?;
    let mut limits = ApiLimits::default();
    limits.max_connections = limits.max_connections.min((left - ApiLimits::HEALTH_CONNECTIONS) / 2);
    Ok(limits)
}

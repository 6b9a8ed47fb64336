//! The file descriptors that each part of a service needs. They are reserved before anything is opened.

use netagg_api::ApiLimits;
#[cfg(feature = "services")]
use netagg_pg::PgConfig;
#[cfg(feature = "services")]
use netagg_redis::RedisConfig;

use crate::Failure;
#[cfg(feature = "services")]
use crate::ops;
use crate::process::file_descriptors::{Need, OWN, reserve};

/// A client keeps a connection and a pipe for each broker that it needs.
#[cfg(feature = "services")]
const KAFKA: Need = Need { of: "Kafka", descriptors: 128 };

#[cfg(feature = "services")]
fn postgres(connections: u32) -> Need {
    Need { of: "PostgreSQL", descriptors: connections as usize }
}

/// A cluster has several nodes.
#[cfg(feature = "services")]
fn redis(cache: &RedisConfig) -> Need {
    const NODES: usize = 8;
    Need { of: "Redis", descriptors: NODES * cache.connections }
}

/// Reserves the descriptors of a service that consumes a topic. The service may have no cache.
///
/// # Errors
/// [`Failure::Usage`] if the process may open too few files.
#[cfg(feature = "services")]
pub fn reserve_for_consumer(database: &PgConfig, cache: Option<&RedisConfig>) -> Result<(), Failure> {
    let needs = [OWN, ops::DESCRIPTORS, postgres(database.max_connections), KAFKA];
    let needs: Vec<_> = needs.into_iter().chain(cache.map(redis)).collect();
    reserve(&needs, 0).map(drop)
}

/// Reserves the descriptors of the API, which reads events and totals from `reads`, and keys and secrets from `writes`. Returns
/// the limits of the two ports, which share the remaining descriptors.
///
/// # Errors
/// [`Failure::Usage`] if too few descriptors are left for the ports.
#[cfg(feature = "services")]
pub fn api_limits(reads: &PgConfig, writes: &PgConfig, cache: &RedisConfig) -> Result<ApiLimits, Failure> {
    // The API keys and the cursor secret each have a pool.
    let connections = reads.max_connections + 2 * writes.max_connections;
    limits_of_ports(&[OWN, ops::DESCRIPTORS, postgres(connections), redis(cache)])
}

/// The limits of the API of the demonstration, which opens only its two ports.
///
/// # Errors
/// [`Failure::Usage`] if too few descriptors are left for the ports.
pub fn demo_limits() -> Result<ApiLimits, Failure> {
    limits_of_ports(&[OWN])
}

/// The limits of an API whose two ports share the remaining descriptors, half for each port.
fn limits_of_ports(needs: &[Need]) -> Result<ApiLimits, Failure> {
    /// The smallest useful number of connections of a port.
    const FEWEST: usize = 16;
    let left = reserve(needs, 2 * FEWEST + ApiLimits::HEALTH_CONNECTIONS)?;
    let mut limits = ApiLimits::default();
    limits.max_connections = limits.max_connections.min((left - ApiLimits::HEALTH_CONNECTIONS) / 2);
    Ok(limits)
}

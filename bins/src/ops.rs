//! The ops port of a service: liveness, readiness, metrics and profiles.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use netagg_api::{ApiLimits, OpsMetrics, ops_router, profiles_router, sample_heap, serve_router};
use netagg_core::Readiness;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::process::Shutdown;
use crate::process::file_descriptors::Need;
use crate::process::lost_lines;
use crate::traces;

/// The largest number of connections at a time.
const MAX_CONNECTIONS: usize = 32;

/// The descriptors of the ops port. They are reserved, so the port responds however many clients the service has.
pub const DESCRIPTORS: Need = Need { of: "the ops port", descriptors: MAX_CONNECTIONS };

/// Limits for a few scrapers and a person.
fn limits() -> ApiLimits {
    let mut limits = ApiLimits::default();
    limits.max_connections = MAX_CONNECTIONS;
    limits.max_head_bytes = 8 * 1_024;
    // An idle connection closes early enough for a probe to get its place.
    limits.idle_timeout = Duration::from_secs(5);
    limits
}

/// How the ops port of a service is configured.
#[derive(Clone, Copy, Debug)]
pub struct OpsConfig {
    /// The address that the port listens on.
    pub address: SocketAddr,
    /// Whether the port serves profiles.
    pub pprof: bool,
}

/// Installs the metrics recorder of the process, with the metrics of the process itself.
///
/// # Errors
/// When the process already has a recorder.
pub(crate) fn install_metrics() -> Result<OpsMetrics, Failure> {
    let metrics = OpsMetrics::install(describe).map_err(|error| Failure::Failed(error.into()))?;
    traces::register_metrics();
    let process = metrics_process::Collector::default();
    metrics.sample(move || {
        process.describe();
        process.collect();
    });
    metrics.sample(|| counter!("netagg_log_lines_lost_total").absolute(lost_lines()));
    metrics.sample(|| {
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("rust", env!("NETAGG_RUST"))];
        gauge!("netagg_build_info", &labels).set(1.0);
    });
    Ok(metrics)
}

/// Describes the metrics of the libraries, then the metrics of the programs.
fn describe() {
    netagg_core::describe_metrics();
    netagg_kafka::describe_metrics();
    netagg_pg::describe_metrics();
    netagg_api::describe_metrics();
    traces::describe_metrics();
    describe_counter!(
        "netagg_log_lines_lost_total",
        Unit::Count,
        "Log lines that could not be written, because stderr was full, closed, or not read for 100 ms."
    );
    describe_gauge!(
        "netagg_build_info",
        Unit::Count,
        "Always 1. The labels are the version of the program and of the Rust compiler."
    );
}

/// Serves the ops port in the background until the program ends.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) async fn serve(
    config: OpsConfig,
    readiness: Arc<Readiness>,
    metrics: Arc<OpsMetrics>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let OpsConfig { address, pprof } = config;
    let rendered = metrics.clone();
    let mut router = ops_router(readiness, move || rendered.render());
    if pprof {
        sample_heap().await;
        router = router.merge(profiles_router());
    }
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("the ops port {address} cannot be bound: {error}").into()))?;
    tracing::info!(%address, "ops port");
    let never = CancellationToken::new();
    shutdown.spawn("ops port", serve_router(listener, router, limits(), never.clone()));
    shutdown.spawn("metrics", async move { metrics.upkeep_loop(&never).await });
    Ok(())
}

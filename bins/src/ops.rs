//! The ops port of a service: is it alive, is it ready, what does it do, and where does its time go.

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
use crate::process::descriptors::Need;
use crate::process::lost_lines;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 32;

/// The descriptors of the ops port, which answers however many clients the service has.
pub const DESCRIPTORS: Need = Need { of: "the ops port", descriptors: MAX_CONNECTIONS };

/// A few scrapers and a person. An idle connection makes room for another.
fn limits() -> ApiLimits {
    let mut limits = ApiLimits::default();
    limits.max_connections = MAX_CONNECTIONS;
    limits.max_head_bytes = 8 * 1_024;
    // An idle client makes room for a probe in time.
    limits.idle_timeout = Duration::from_secs(5);
    limits
}

/// How the ops port of a service is configured.
#[derive(Clone, Copy, Debug)]
pub struct OpsConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it gives profiles.
    pub pprof: bool,
}

/// The recorder of the process, with the metrics of the process itself.
///
/// # Errors
/// When the process has a recorder already.
pub(crate) fn install_metrics() -> Result<OpsMetrics, Failure> {
    let metrics = OpsMetrics::install(describe).map_err(|error| Failure::Failed(error.into()))?;
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

/// The metrics of the libraries, then those of the programs.
fn describe() {
    netagg_core::describe_metrics();
    netagg_kafka::describe_metrics();
    netagg_pg::describe_metrics();
    netagg_api::describe_metrics();
    describe_counter!(
        "netagg_log_lines_lost_total",
        Unit::Count,
        "Lines of the log that stderr did not take: it was full, closed, or not read for 100 ms."
    );
    describe_gauge!("netagg_build_info", Unit::Count, "Always 1; its labels say what this program was built from.");
}

/// Serves the ops port in the background, to the program's end.
///
/// # Errors
/// When its address cannot be bound.
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

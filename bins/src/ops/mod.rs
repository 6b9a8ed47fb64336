//! The ops port of a service: is it alive, is it ready, what does it do, and where does its time go.

mod metrics;
mod profile;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use netagg_api::{ApiLimits, ops_router, serve_router};
use netagg_core::Readiness;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;
use profile::Profiler;

use crate::descriptors::Need as Descriptors;
use crate::{Failure, Shutdown};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 32;

/// The descriptors of the ops port, which answers however many clients the service has.
pub const DESCRIPTORS: Descriptors = Descriptors { of: "the ops port", descriptors: MAX_CONNECTIONS };

/// A few scrapers and a person; whoever sends no request makes room for others.
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
#[allow(clippy::exhaustive_structs)]
pub struct OpsConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it gives profiles.
    pub pprof: bool,
}

/// The routes of the ops port.
fn router(readiness: Arc<Readiness>, metrics: Arc<Metrics>, pprof: bool) -> Router {
    let router = ops_router(readiness, move || metrics.render());
    if pprof { router.merge(profiles()) } else { router }
}

fn profiles() -> Router {
    let profiler = Arc::new(Profiler::default());
    Router::new()
        .route(
            "/debug/pprof/profile",
            get(async |State(profiler): State<Arc<Profiler>>, parameters: Query<_>| profiler.cpu(parameters).await),
        )
        .route(
            "/debug/pprof/heap",
            get(async |State(profiler): State<Arc<Profiler>>, parameters: Query<_>| profiler.heap(parameters).await),
        )
        .with_state(profiler)
}

/// Serves the ops port in the background, to the program's end.
///
/// # Errors
/// When its address cannot be bound.
pub(crate) async fn serve(
    config: OpsConfig,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let OpsConfig { address, pprof } = config;
    if pprof {
        profile::sample_heap().await;
    }
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("the ops port {address} cannot be bound: {error}").into()))?;
    tracing::info!(%address, "ops port");
    let never = CancellationToken::new();
    let router = router(readiness, metrics.clone(), pprof);
    shutdown.spawn("ops port", serve_router(listener, router, limits(), never.clone()));
    shutdown.spawn("metrics", async move { metrics.keep_up(never).await });
    Ok(())
}

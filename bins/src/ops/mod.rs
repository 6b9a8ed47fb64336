//! The ops port of a service: is it alive, is it ready, what does it do, and where does its time go.

mod metrics;
mod profile;
mod readiness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use netagg_api::{ApiLimits, serve_router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use metrics::{Job, Metrics};
use profile::Profiler;
pub use readiness::{Need, Readiness};

use crate::descriptors::Need as Descriptors;
use crate::{Failure, Shutdown};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 32;

/// The descriptors of the ops port, which answers however many clients the service has.
pub const DESCRIPTORS: Descriptors = Descriptors { of: "the ops port", descriptors: MAX_CONNECTIONS };

/// A few scrapers and a person; whoever sends no request makes room for others.
fn limits() -> ApiLimits {
    ApiLimits {
        max_connections: MAX_CONNECTIONS,
        max_head_bytes: 8 * 1_024,
        // An idle client makes room for a probe in time.
        idle_timeout: Duration::from_secs(5),
        ..ApiLimits::default()
    }
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

/// What the ops port tells of.
#[derive(Clone, Debug)]
pub(crate) struct Ops {
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The routes of the ops port.
fn router(ops: Ops, pprof: bool) -> Router {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async |State(ops): State<Ops>| ops.metrics.into_response()))
        .with_state(ops);
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
pub(crate) async fn serve(config: OpsConfig, ops: Ops, shutdown: &Shutdown) -> Result<(), Failure> {
    let OpsConfig { address, pprof } = config;
    if pprof {
        profile::sample_heap().await;
    }
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("the ops port {address} cannot be bound: {error}").into()))?;
    tracing::info!(%address, "ops port");
    let metrics = ops.metrics.clone();
    let never = CancellationToken::new();
    shutdown.spawn("ops port", serve_router(listener, router(ops, pprof), limits(), never.clone()));
    shutdown.spawn("metrics", async move { metrics.keep_up(never).await });
    Ok(())
}

async fn ready(State(ops): State<Ops>) -> Response {
    let report = ops.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

//! The ops port of a service: is it alive, is it ready.

mod readiness;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use readiness::{Need, Readiness};

use crate::Failure;

/// The routes of the ops port.
pub fn router(readiness: Arc<Readiness>) -> Router {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).with_state(readiness)
}

/// Serves the ops port on `address` in the background until `stop`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, readiness: Arc<Readiness>, stop: CancellationToken) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("the ops port {address} cannot be bound: {error}").into()))?;
    tracing::info!(%address, "ops port");
    let server = axum::serve(listener, router(readiness)).with_graceful_shutdown(stop.cancelled_owned());
    tokio::spawn(async move { server.await });
    Ok(())
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    let report = readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

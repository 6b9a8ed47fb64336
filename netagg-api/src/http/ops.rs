//! The routes for operators: liveness, readiness and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use netagg_core::Readiness;

/// The content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes `/healthz`, `/readyz` and `/metrics` of a service, to serve with [`serve_router`](super::serve_router) or to
/// merge into an application. They are only for operators: `/readyz` returns reasons, and no route needs credentials.
///
/// `/healthz` returns 200 while the process runs. `/readyz` returns the JSON of [`Readiness::report`], with 200 if the service is
/// ready, otherwise with 503. `/metrics` returns the text of `render_metrics`, which must be in Prometheus' text format. The
/// application provides the recorder.
pub fn ops_router<R>(readiness: Arc<Readiness>, render_metrics: R) -> Router
where
    R: Fn() -> String + Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(is_ready))
        .route("/metrics", get(async move || ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], render_metrics())))
        .with_state(readiness)
}

async fn is_ready(State(readiness): State<Arc<Readiness>>) -> Response {
    let report = readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

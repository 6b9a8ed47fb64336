//! Whether the API is alive and can answer, for load balancers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use moka::future::Cache;
use netagg_core::usage::UsageService;
use serde::Serialize;
use tower::util::MapResponseLayer;

use super::problem::method_not_allowed;
use super::{browsers, host};
use crate::answers::Failure;
use crate::auth::Protection;
use crate::health;
use crate::server::Server;

/// How long a finding is told again, however many ask.
const TOLD: Duration = Duration::from_secs(1);

impl Server {
    /// The routes `/healthz` and `/readyz`. [`serve_http`](Self::serve_http) serves them beside the API;
    /// [`router`](Self::router) leaves them to the application.
    ///
    /// Both are open to everybody and subject to no limit. `/healthz` answers 200 while the server runs. `/readyz` answers
    /// 200 while the service can be asked and credentials can be checked, and 503 otherwise; it asks at most once a second,
    /// and tells no reason.
    pub fn health_router(&self) -> Router {
        let ready = Ready {
            service: self.service.clone(),
            protection: self.protection.clone(),
            found: Cache::builder().max_capacity(1).time_to_live(TOLD).build(),
        };
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(is_ready))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn(host::checked))
            .layer(MapResponseLayer::new(fresh))
            .layer(MapResponseLayer::new(browsers::contained))
            .with_state(ready)
    }
}

/// The API while there is no service to ask yet: alive, not ready, and 503 to every question.
pub(super) fn unready_router() -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async || (StatusCode::SERVICE_UNAVAILABLE, Json(Report { ready: false }))))
        .fallback(async || Failure::Unavailable)
        .layer(from_fn(host::checked))
        .layer(MapResponseLayer::new(fresh))
        .layer(MapResponseLayer::new(browsers::contained))
}

#[derive(Clone)]
struct Ready {
    service: Arc<UsageService>,
    protection: Protection,
    found: Cache<(), bool>,
}

#[derive(Serialize)]
struct Report {
    ready: bool,
}

async fn is_ready(State(Ready { service, protection, found }): State<Ready>) -> Response {
    let ready = found.get_with((), async { health::can_answer(&service, &protection).await }).await;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Report { ready })).into_response()
}

fn fresh(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

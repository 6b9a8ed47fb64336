//! The health of the API for load balancers: `/healthz` and `/readyz`.

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
use super::{host, security_headers};
use crate::auth::Protection;
use crate::handlers::HandlerError;
use crate::health;
use crate::server::Server;

/// How long the result of a check is reused.
const RESULT_TTL: Duration = Duration::from_secs(1);

impl Server {
    /// The routes `/healthz` and `/readyz`. [`serve_http`](Self::serve_http) serves them in addition to the API.
    /// [`router`](Self::router) does not contain them.
    ///
    /// Both are open to every caller and have no limit. `/healthz` returns 200 while the server runs. `/readyz` returns 200 while
    /// the service can answer requests and credentials can be checked, and 503 otherwise. It checks at most once a second, and
    /// returns no reason.
    pub fn health_router(&self) -> Router {
        let ready = Ready {
            service: self.service.clone(),
            protection: self.protection.clone(),
            result: Cache::builder().max_capacity(1).time_to_live(RESULT_TTL).build(),
        };
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(is_ready))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn(host::check_host))
            .layer(MapResponseLayer::new(no_store))
            .layer(MapResponseLayer::new(security_headers::add))
            .with_state(ready)
    }
}

/// The routes of the API before its service exists: alive, not ready, the files of `pages`, and 503 for every other request.
pub(super) fn unready_router(pages: Router) -> Router {
    pages
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async || (StatusCode::SERVICE_UNAVAILABLE, Json(Report { ready: false }))))
        .fallback(async || HandlerError::Unavailable)
        .layer(from_fn(host::check_host))
        .layer(MapResponseLayer::new(no_store))
        .layer(MapResponseLayer::new(security_headers::add))
}

#[derive(Clone)]
struct Ready {
    service: Arc<UsageService>,
    protection: Protection,
    result: Cache<(), bool>,
}

#[derive(Serialize)]
struct Report {
    ready: bool,
}

async fn is_ready(State(Ready { service, protection, result }): State<Ready>) -> Response {
    let ready = result.get_with((), async { health::can_answer(&service, &protection).await }).await;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Report { ready })).into_response()
}

/// Forbids caches to store the response.
fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

//! The routes of the HTTP API, and the layers around them.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower::util::MapResponseLayer;
#[cfg(feature = "compression")]
use tower_http::CompressionLevel;
#[cfg(feature = "compression")]
use tower_http::compression::{CompressionLayer, predicate::SizeAbove};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::layers::{cache_headers, hold_permit, limit_request_size, record_metrics};
use super::problem::{Problem, method_not_allowed, not_found};
use super::state::Api;
use super::{browsers, host, openapi, usage};
use crate::answers::Answers;
use crate::auth::{GuardLayer, Refusal};
use crate::response_cache::ResponseCache;
use crate::server::Server;

/// Smaller answers are not worth compressing: they fit into one packet anyway.
#[cfg(feature = "compression")]
const MIN_COMPRESSED_BYTES: u64 = 1_024;

/// Of gzip, br and zstd alike: JSON gets little smaller beyond it, and much slower.
#[cfg(feature = "compression")]
const COMPRESSION: CompressionLevel = CompressionLevel::Precise(4);

impl Server {
    /// The HTTP API as routes, for an application to merge or nest: `app.merge(server.router())`.
    ///
    /// They have no fallback: the application answers all other paths. Of the [`ApiLimits`](crate::ApiLimits), the limits of requests hold
    /// here. With a rate limit the application's server has to tell where requests come from: see
    /// [`Protection::with_rate_limit`](crate::Protection::with_rate_limit).
    pub fn router(&self) -> Router {
        self.routes(false)
    }

    /// The routes, and an answer to all other paths if they have a fallback.
    pub(super) fn routes(&self, has_fallback: bool) -> Router {
        let Self { service, protection, limits, base_path } = self;
        let (router, api) = OpenApiRouter::with_openapi(openapi::description(base_path.as_deref()))
            .routes(routes!(usage::detail).layer(from_fn(hold_permit)))
            .routes(routes!(usage::user_aggregates).layer(from_fn(hold_permit)))
            // Everybody's totals have their room already, and are written once for all.
            .routes(routes!(usage::aggregates))
            .split_for_parts();
        let mut router = router
            // An empty user is a wrong one, not another page.
            .route("/api/v1/users//detail", get(usage::detail))
            .route("/api/v1/users//aggregates", get(usage::user_aggregates));
        if has_fallback {
            router = router.fallback(not_found);
        }
        let router = router
            // Routes added above this layer answer callers that it lets in, routes added below answer everybody.
            .layer(GuardLayer::new(protection.clone(), refuse))
            .merge(openapi::router(api))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn_with_state(limits.clone(), limit_request_size))
            .layer(from_fn(host::checked));
        #[cfg(feature = "compression")]
        let router = router
            .layer(CompressionLayer::new().quality(COMPRESSION).compress_when(SizeAbove::new(MIN_COMPRESSED_BYTES)));
        let router = router
            .layer(from_fn(cache_headers))
            .layer(MapResponseLayer::new(browsers::contained))
            .layer(from_fn(record_metrics))
            .with_state(Api { answers: Answers::new(service.clone(), limits), totals: ResponseCache::new() });
        let router = match protection.is_encrypted() {
            true => router.layer(MapResponseLayer::new(browsers::encrypted)),
            false => router,
        };
        // CORS answers every OPTIONS. Without origins it is left out.
        match protection.cors_origins() {
            [] => router,
            // The check of the host again: CORS answers before the check above.
            origins => router.layer(browsers::cors(origins)).layer(from_fn(host::checked)),
        }
    }
}

fn refuse(refusal: &Refusal) -> Response {
    Problem::from(refusal).into_response()
}

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
#[cfg(feature = "overview-page")]
use super::overview;
use super::problem::{Problem, method_not_allowed, not_found};
use super::state::Api;
use super::{cors, host, openapi, security_headers, trace, usage};
use crate::auth::{GuardLayer, Rejection};
use crate::handlers::Handlers;
use crate::response_cache::ResponseCache;
use crate::server::Server;
use crate::trace::TraceLayer;

/// Smaller responses are not compressed: they fit into one packet anyway.
#[cfg(feature = "compression")]
const MIN_COMPRESSED_BYTES: u64 = 1_024;

/// The level for gzip, br and zstd. Higher levels are much slower and make JSON only a little smaller.
#[cfg(feature = "compression")]
const COMPRESSION: CompressionLevel = CompressionLevel::Precise(4);

impl Server {
    /// The HTTP API as routes, for an application to merge or nest: `app.merge(server.router())`.
    ///
    /// The routes have no fallback: the application handles all other paths. Of the [`ApiLimits`](crate::ApiLimits), the limits
    /// of requests apply. With a rate limit the server of the application has to provide the client address of requests: see
    /// [`Protection::with_rate_limit`](crate::Protection::with_rate_limit).
    pub fn router(&self) -> Router {
        self.routes(false)
    }

    /// The routes of the API. With a fallback they also respond to all other paths.
    pub(super) fn routes(&self, has_fallback: bool) -> Router {
        let Self { service, protection, limits, base_path, propagator, .. } = self;
        let (router, api) = OpenApiRouter::with_openapi(openapi::description(base_path.as_deref()))
            .routes(routes!(usage::detail).layer(from_fn(hold_permit)))
            .routes(routes!(usage::user_aggregates).layer(from_fn(hold_permit)))
            // The totals of all users need no permit: the response cache bounds their memory, and all clients share the encoded
            // response.
            .routes(routes!(usage::aggregates))
            .split_for_parts();
        let mut router = router
            // An empty user id is a wrong parameter, not an unknown path.
            .route("/api/v1/users//detail", get(usage::detail))
            .route("/api/v1/users//aggregates", get(usage::user_aggregates));
        #[cfg(feature = "overview-page")]
        if self.has_overview_page {
            router = router.merge(overview::fragments());
        }
        if has_fallback {
            router = router.fallback(not_found);
        }
        let router = router
            // Routes added above this layer serve only accepted callers. Routes added below serve every caller.
            .layer(GuardLayer::new(protection.clone(), reject))
            .merge(openapi::router(api));
        #[cfg(feature = "overview-page")]
        let router = match self.has_overview_page {
            true => router.merge(overview::overview_page(base_path.as_deref().unwrap_or_default()).with_state(())),
            false => router,
        };
        let router = router
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn_with_state(limits.clone(), limit_request_size))
            .layer(from_fn(host::check_host));
        #[cfg(feature = "compression")]
        let router = router
            .layer(CompressionLayer::new().quality(COMPRESSION).compress_when(SizeAbove::new(MIN_COMPRESSED_BYTES)));
        let router = router
            .layer(from_fn(cache_headers))
            .layer(MapResponseLayer::new(security_headers::add))
            .layer(from_fn(record_metrics))
            .with_state(Api { handlers: Handlers::new(service.clone(), limits), totals: ResponseCache::new() });
        let router = match protection.is_encrypted() {
            true => router.layer(MapResponseLayer::new(security_headers::add_strict_transport_security)),
            false => router,
        };
        // The CORS layer responds to every OPTIONS request, so it is left out without origins.
        let router = match protection.cors_origins() {
            [] => router,
            // The host is checked again here, because the CORS layer responds before the check above.
            origins => router.layer(cors::layer(origins)).layer(from_fn(host::check_host)),
        };
        // The outermost layer, so that the span and the header `trace-id` belong to every response.
        router.layer(TraceLayer::new(propagator.clone(), trace::begin, trace::end))
    }
}

/// The response to a rejected request.
fn reject(rejection: &Rejection) -> Response {
    Problem::from(rejection).into_response()
}

//! CORS: the pages of other origins that may call the API.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use netagg_core::TraceContext;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::trace::TRACE_ID;

/// How long a browser may cache the result of a CORS preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3_600);

/// The CORS layer that allows pages of `origins` to call the API.
pub(super) fn layer(origins: &[HeaderValue]) -> CorsLayer {
    let allowed = match origins {
        [any] if any == "*" => AllowOrigin::any(),
        _ => AllowOrigin::list(origins.iter().cloned()),
    };
    let rate_limit_headers = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(HeaderName::from_static);
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([
            header::AUTHORIZATION,
            HeaderName::from_static("x-api-key"),
            header::IF_NONE_MATCH,
            HeaderName::from_static(TraceContext::TRACEPARENT),
            HeaderName::from_static(TraceContext::TRACESTATE),
        ])
        .expose_headers(
            [header::ETAG, header::RETRY_AFTER, TRACE_ID].into_iter().chain(rate_limit_headers).collect::<Vec<_>>(),
        )
        .max_age(PREFLIGHT_AGE)
}

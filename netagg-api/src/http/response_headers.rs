//! The headers for browsers: security headers on every response, and CORS.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Response, header};
use netagg_core::TraceContext;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::trace::TRACE_ID;

/// How long a browser may cache the result of a CORS preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3_600);

/// Adds the security headers. A response is data, so a browser must not run it, show it in a frame or guess another content
/// type.
pub(super) fn security_headers<B>(mut response: Response<B>) -> Response<B> {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        // The pages for browsers set their own policies, which stay.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Adds `Strict-Transport-Security`: for one year after a response over TLS, the browser uses only TLS.
pub(super) fn strict_transport_security<B>(mut response: Response<B>) -> Response<B> {
    let a_year = HeaderValue::from_static("max-age=31536000");
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, a_year);
    response
}

/// The CORS layer that allows pages of `origins` to call the API.
pub(super) fn cors(origins: &[HeaderValue]) -> CorsLayer {
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

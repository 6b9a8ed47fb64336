//! What browsers are told of every answer: what it may do there, and whose pages may read it.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Response, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser remembers what it was allowed.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3_600);

/// An answer is data: it is neither run nor framed, nor taken for another type than it says.
pub(super) fn contained<B>(mut response: Response<B>) -> Response<B> {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        // A page for people says by itself what it needs.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Once a browser has been answered over TLS it asks no other way for a year.
pub(super) fn encrypted<B>(mut response: Response<B>) -> Response<B> {
    let a_year = HeaderValue::from_static("max-age=31536000");
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, a_year);
    response
}

/// Lets pages of `origins` ask.
pub(super) fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let allowed = match origins {
        [any] if any == "*" => AllowOrigin::any(),
        _ => AllowOrigin::list(origins.iter().cloned()),
    };
    let rates = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(HeaderName::from_static);
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::AUTHORIZATION, HeaderName::from_static("x-api-key"), header::IF_NONE_MATCH])
        .expose_headers([header::ETAG, header::RETRY_AFTER].into_iter().chain(rates).collect::<Vec<_>>())
        .max_age(PREFLIGHT_AGE)
}

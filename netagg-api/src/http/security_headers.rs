//! The security headers for browsers, on every response.

use axum::http::{HeaderValue, Response, header};

/// Adds the security headers. A response is data, so a browser must not run it, show it in a frame or guess another content
/// type.
pub(super) fn add<B>(mut response: Response<B>) -> Response<B> {
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

/// Sets the content security policy of a page for browsers.
pub(super) fn set_policy<B>(mut response: Response<B>, policy: HeaderValue) -> Response<B> {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Adds `Strict-Transport-Security`: for one year after a response over TLS, the browser uses only TLS.
pub(super) fn add_strict_transport_security<B>(mut response: Response<B>) -> Response<B> {
    let a_year = HeaderValue::from_static("max-age=31536000");
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, a_year);
    response
}

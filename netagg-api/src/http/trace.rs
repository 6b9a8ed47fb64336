//! The span of an HTTP request, with the attributes that OpenTelemetry defines for HTTP.

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, Response};
use tracing::{Span, field};

/// The span of `request`. Its name and attributes have the pattern of the route. The path and the query may hold user ids, so
/// they stay out of traces and logs.
pub(super) fn begin(request: &Request) -> Span {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    };
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let name = match (method, route) {
        ("_OTHER", Some(route)) => format!("HTTP {route}"),
        ("_OTHER", None) => "HTTP".to_owned(),
        (method, Some(route)) => format!("{method} {route}"),
        (method, None) => method.to_owned(),
    };
    tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        error.r#type = field::Empty,
        trace_id = field::Empty,
    )
}

/// Records the status of the response. Only errors of the server count as errors: a request of a client may be wrong.
pub(super) fn end(span: &Span, response: &Response<Body>) {
    let status = response.status();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.as_str());
    }
}

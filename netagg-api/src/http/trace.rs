//! The span of an HTTP request, with the attributes that OpenTelemetry defines for HTTP.

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, Response};
use tracing::{Span, field};

/// The method in traces if it is none of the methods that the API knows.
const OTHER: &str = "_OTHER";

/// The span of `request`. Its name and attributes have the pattern of the route. The path and the query may hold user ids, so
/// they stay out of traces and logs.
pub(super) fn begin(request: &Request) -> Span {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    };
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    tracing::info_span!(
        "request",
        // Made only if the span is seen.
        otel.name = name(method, route),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        error.r#type = field::Empty,
        trace_id = field::Empty,
    )
}

fn name(method: &str, route: Option<&str>) -> String {
    let method = if method == OTHER { "HTTP" } else { method };
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
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

//! The layers around the routes: size limits of requests, permits for responses, metrics and cache headers.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{TryStreamExt, stream};

use super::problem::Problem;
use crate::client::Client;
use crate::handlers::{STREAM_BYTES, overloaded};
use crate::response_budget::move_permit_to_body;
use crate::server_limits::ApiLimits;

/// The maximum size of a request's path and query, in bytes. The longest useful one has less than a third of it.
const MAX_URI_BYTES: usize = 8 * 1_024;

/// How many bytes of a body that is too large are still read before the connection closes, and for how long.
const LINGER_BYTES: u64 = 1 << 20;
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Rejects a request that is too large before any other code handles it. No request of this API needs a body, so a body is read
/// and dropped. It has to be read, because its length may not be known before.
pub(super) async fn limit_request_size(State(limits): State<ApiLimits>, request: Request, next: Next) -> Response {
    let uri_bytes = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    let head_bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let max_body_bytes = limits.max_body_bytes as u64;
    if uri_bytes > MAX_URI_BYTES {
        Problem::uri_too_long(MAX_URI_BYTES).into_response()
    } else if uri_bytes + head_bytes > limits.max_head_bytes {
        Problem::head_too_large(limits.max_head_bytes).into_response()
    } else if request.body().size_hint().lower() > max_body_bytes {
        // A client with `Expect: 100-continue` waits for permission to send the body, and gets none.
        let is_being_sent = !request.headers().contains_key(header::EXPECT);
        if is_being_sent {
            linger(&mut request.into_body().into_data_stream()).await;
        }
        Problem::body_too_large(max_body_bytes).into_response()
    } else if request.body().is_end_stream() {
        next.run(request).await
    } else {
        let (head, body) = request.into_parts();
        let mut body = body.into_data_stream();
        match tokio::time::timeout(limits.request_timeout, drain(&mut body, max_body_bytes)).await {
            Ok(Ok(true)) => next.run(Request::from_parts(head, Body::empty())).await,
            Ok(Ok(false)) => {
                linger(&mut body).await;
                Problem::body_too_large(max_body_bytes).into_response()
            }
            Ok(Err(_)) => Problem::body_broken().into_response(),
            Err(_) => Problem::body_too_slow(limits.request_timeout).into_response(),
        }
    }
}

/// Reads and drops `body`. Returns whether it has at most `max_bytes`.
async fn drain(body: &mut BodyDataStream, max_bytes: u64) -> Result<bool, axum::Error> {
    let mut bytes = 0;
    while let Some(chunk) = body.try_next().await? {
        bytes += chunk.len() as u64;
        if bytes > max_bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads some more bytes of a rejected body. If the server closes a connection while the client still sends, the connection is
/// reset, and the client may never read the response.
async fn linger(body: &mut BodyDataStream) {
    // Best effort: the response is the same whether this succeeds or not.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, drain(body, LINGER_BYTES)).await;
}

/// Takes a permit for the response and holds it until the client has taken the response. Rejects the request as overloaded if
/// the budget has no permit.
pub(super) async fn hold_permit(request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>().cloned();
    let mut response = next.run(request).await;
    // A server of the application has no budget for responses.
    let Some(Client { budget, .. }) = client else { return response };
    let bytes = response.body().size_hint().exact().map_or(STREAM_BYTES, |bytes| bytes as usize);
    let Some(permit) = budget.take(bytes) else { return Problem::from(overloaded()).into_response() };
    response.extensions_mut().insert(permit);
    move_permit_to_body(response).into_response()
}

/// Records the duration of the request, by the pattern of the route. So paths and methods that clients invent add no time
/// series.
pub(super) async fn record_metrics(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        _ => "other",
    };
    let response = next.run(request).await;
    let route = route.map_or("unmatched".to_owned(), |route| route.as_str().to_owned());
    let status = response.status().as_str().to_owned();
    metrics::histogram!("netagg_http_request_duration_seconds", "route" => route, "method" => method, "status" => status)
        .record(started.elapsed());
    response
}

/// Adds the headers for caches to every response. If the client accepts none of the encodings, the response becomes a problem
/// with the reason.
pub(super) async fn cache_headers(request: Request, next: Next) -> Response {
    let encodings = request.headers().get(header::ACCEPT_ENCODING).cloned();
    let mut response = next.run(request).await;
    if response.status() == StatusCode::NOT_ACCEPTABLE
        && response.extensions().get() != Some(&StatusCode::NOT_ACCEPTABLE)
    {
        let found = encodings.as_ref().map_or(Default::default(), |value| String::from_utf8_lossy(value.as_bytes()));
        let accepted = "gzip, br, zstd or identity";
        response = Problem::not_acceptable("Accept-Encoding", &found, accepted).into_response();
    }
    if matches!(response.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT) {
        // A stream has no known length. With an empty body axum would send `Content-Length: 0`, which is not the length of the
        // response that the client has.
        *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

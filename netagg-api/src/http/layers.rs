//! The layers around the routes: bounds of requests, permits, metrics and headers of caches.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{TryStreamExt, stream};

use super::problem::Problem;
use crate::answers::{STREAM_BYTES, overloaded};
use crate::client::Client;
use crate::room::in_place;
use crate::server_limits::ApiLimits;

/// The most bytes of a request's path and query; the longest useful one has less than a third of it.
const MAX_URI_BYTES: usize = 8 * 1_024;

/// How much of a body that is too large is still read, and for how long.
const LINGER_BYTES: u64 = 1 << 20;
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Refuses a request that is too large before anything looks at it. A body, which no request here has a use for, is read
/// and dropped: its length may not be told before.
pub(super) async fn limit_request_size(State(limits): State<ApiLimits>, request: Request, next: Next) -> Response {
    let uri_bytes = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    let head_bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let max_body_bytes = limits.max_body_bytes as u64;
    if uri_bytes > MAX_URI_BYTES {
        Problem::uri_too_long(MAX_URI_BYTES).into_response()
    } else if uri_bytes + head_bytes > limits.max_head_bytes {
        Problem::head_too_large(limits.max_head_bytes).into_response()
    } else if request.body().size_hint().lower() > max_body_bytes {
        // A client that waits for leave to send it is not given any.
        let is_on_its_way = !request.headers().contains_key(header::EXPECT);
        if is_on_its_way {
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

/// Reads and drops `body`; whether it ends within so many bytes.
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

/// Takes some more of a body that is refused: a connection that is closed before its client has sent all is reset, and the
/// client may never read why.
async fn linger(body: &mut BodyDataStream) {
    // Best effort: whatever comes of it, the answer is the same.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, drain(body, LINGER_BYTES)).await;
}

/// Gives an answer only if there is room for it until the client has taken it.
pub(super) async fn hold_permit(request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>().cloned();
    let mut response = next.run(request).await;
    // A server of the application has no budget of answers.
    let Some(Client { room, .. }) = client else { return response };
    let bytes = response.body().size_hint().exact().map_or(STREAM_BYTES, |bytes| bytes as usize);
    let Some(place) = room.take(bytes) else { return Problem::from(overloaded()).into_response() };
    response.extensions_mut().insert(place);
    in_place(response).into_response()
}

/// Notes how long the answer took, by the route's pattern: paths and methods that a client makes up add no series.
pub(super) async fn record_metrics(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        _ => "other",
    };
    let response = next.run(request).await;
    let route = route.map_or("unmatched".to_owned(), |route| route.as_str().to_owned());
    let status = response.status().as_str().to_owned();
    metrics::histogram!("netagg_http_request_seconds", "route" => route, "method" => method, "status" => status)
        .record(begun.elapsed());
    response
}

/// Says of every answer what caches need to know, and of one that no accepted encoding can carry, why there is none.
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
        // Of no told length: axum would say that it is 0, which is not the length of the answer that the client has.
        *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

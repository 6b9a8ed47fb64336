//! HTTP and JSON over the usage service.

mod body;
mod problem;
mod query;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use netagg_core::usage::UsageService;

use crate::answers::{Answers, Failure};
use crate::limits::ApiLimits;
use crate::parameters::Parameters;
use body::{AggregatesBody, DetailBody};
use problem::Problem;

pub use serve::serve_http;

/// The most bytes of a request's path and query; the longest useful one has less than a third of it.
const MAX_URI_BYTES: usize = 8 * 1_024;

/// The HTTP API over `service`, to serve as it is or to merge into a larger application. Of `limits`, those of requests
/// hold here; those of connections are the server's.
pub fn router(service: Arc<UsageService>, limits: &ApiLimits) -> Router {
    Router::new()
        .route("/api/v1/users/{user_id}/detail", get(detail))
        // An empty user is a wrong one, not another page.
        .route("/api/v1/users//detail", get(detail))
        .route("/api/v1/aggregates", get(aggregates))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(limits.max_body_bytes as u64, bounded))
        .layer(map_response(uncached))
        .with_state(Answers::new(service, limits))
}

async fn detail(State(answers): State<Answers>, uri: Uri) -> Result<Response, Failure> {
    let mut parameters = Parameters::default();
    // Not axum's `Path`, which lets a broken escape pass as it is.
    query::read_user_id(uri.path(), &mut parameters);
    query::read(uri.query(), &["from", "to", "cursor", "limit", "type"], &mut parameters);
    let page = answers.detail(parameters).await?;
    Ok(body::json(&DetailBody::from(&page)))
}

async fn aggregates(State(answers): State<Answers>, uri: Uri) -> Result<Response, Failure> {
    let mut parameters = Parameters::default();
    query::read(uri.query(), &["granularity", "from", "to", "type"], &mut parameters);
    let answer = answers.aggregates(parameters).await?;
    Ok(body::json(&AggregatesBody::from(&answer)))
}

async fn not_found(uri: Uri) -> Response {
    Problem::not_found(uri.path()).into_response()
}

async fn method_not_allowed(method: Method) -> Response {
    Problem::method_not_allowed(&method).into_response()
}

/// Refuses what is too large before anything looks at it.
async fn bounded(State(max_body_bytes): State<u64>, request: Request, next: Next) -> Response {
    let uri_bytes = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    if uri_bytes > MAX_URI_BYTES {
        Problem::uri_too_long(MAX_URI_BYTES).into_response()
    } else if request.body().size_hint().lower() > max_body_bytes {
        Problem::body_too_large(max_body_bytes).into_response()
    } else {
        next.run(request).await
    }
}

/// Answers change and tell of people: they are for nobody on the way to keep.
async fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

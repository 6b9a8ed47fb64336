//! The handlers of the HTTP API, with their OpenAPI descriptions.

use std::sync::Arc;

use crate::auth::Principal;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::accept::{self, Format};
use super::body::{AggregatesBody, DetailBody, UserAggregatesBody};
use super::etag::Tagged;
use super::openapi::{DetailParameters, TotalsParameters, UserParameter};
use super::problem::Problem;
use super::state::TotalsCache;
use super::{export, query};
use crate::handlers::{HandlerError, Handlers};
use crate::parameters::Parameters;

/// The query parameters of a request for events.
const EVENTS: [&str; 5] = ["from", "to", "cursor", "limit", "type"];

/// The query parameters of a request for totals.
const TOTALS: [&str; 5] = ["granularity", "from", "to", "type", "tz"];

/// The events of one user, newest first.
///
/// JSON returns one page. NDJSON and CSV stream all events of the range. A response that ends without an error is complete.
#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}/detail",
    operation_id = "GetUserDetail",
    params(UserParameter, DetailParameters),
    responses(
        (status = 200, description = "The events.", content(
            (DetailBody = "application/json"),
            (str = "application/x-ndjson"),
            (str = "text/csv"),
        )),
        (status = 304, description = "The response that `If-None-Match` names is still current."),
    ),
)]
pub(super) async fn detail(
    State(handlers): State<Handlers>,
    Extension(caller): Extension<Arc<Principal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = accept::negotiate(&headers, &[Format::Json, Format::Ndjson, Format::Csv])?;
    let mut parameters = Parameters::of_url();
    // axum's `Path` is not used, because it accepts broken escapes.
    query::read_user_id(uri.path(), &mut parameters);
    query::read(uri.query(), &EVENTS, &mut parameters);
    if format == Format::Json {
        let page = handlers.detail(&caller, parameters).await?;
        Ok(Tagged::json(&DetailBody::from(&page))?.respond(&headers))
    } else {
        Ok(export::response(format, handlers.events(&caller, parameters).await?))
    }
}

/// The totals of all users by event type, by day or by month.
#[utoipa::path(
    get,
    path = "/api/v1/aggregates",
    operation_id = "GetGlobalAgg",
    params(TotalsParameters),
    responses(
        (status = 200, description = "The totals.", body = AggregatesBody),
        (status = 304, description = "The response that `If-None-Match` names is still current."),
    ),
)]
pub(super) async fn aggregates(
    State(handlers): State<Handlers>,
    State(cache): State<TotalsCache>,
    Extension(caller): Extension<Arc<Principal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    accept::negotiate(&headers, &[Format::Json])?;
    let parameters = || {
        let mut parameters = Parameters::of_url();
        query::read(uri.query(), &TOTALS, &mut parameters);
        parameters
    };
    let encode = |answer| {
        let response = Tagged::json(&AggregatesBody::from(&answer))?;
        let bytes = response.bytes();
        Ok::<_, HandlerError>((response, bytes))
    };
    let key = uri.query().unwrap_or_default().into();
    Ok(handlers.aggregates(&caller, &cache, key, parameters, encode).await?.respond(&headers))
}

/// The totals of one user by event type, by day or by month.
#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}/aggregates",
    operation_id = "GetUserAgg",
    params(UserParameter, TotalsParameters),
    responses(
        (status = 200, description = "The totals.", body = UserAggregatesBody),
        (status = 304, description = "The response that `If-None-Match` names is still current."),
    ),
)]
pub(super) async fn user_aggregates(
    State(handlers): State<Handlers>,
    Extension(caller): Extension<Arc<Principal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    accept::negotiate(&headers, &[Format::Json])?;
    let mut parameters = Parameters::of_url();
    query::read_user_id(uri.path(), &mut parameters);
    query::read(uri.query(), &TOTALS, &mut parameters);
    let answer = handlers.user_aggregates(&caller, parameters).await?;
    Ok(Tagged::json(&UserAggregatesBody::from(&answer))?.respond(&headers))
}

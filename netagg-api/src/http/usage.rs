//! What the API answers over HTTP, and how each question is described.

use std::sync::Arc;

use crate::auth::Principal;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::accept::{self, Format};
use super::body::{AggregatesBody, DetailBody, UserAggregatesBody};
use super::conditional::Json;
use super::openapi::{DetailParameters, TotalsParameters, UserParameter};
use super::problem::Problem;
use super::state::TotalsCache;
use super::{export, query};
use crate::answers::{Answers, Failure};
use crate::parameters::Parameters;

/// The parameters of events.
const EVENTS: [&str; 5] = ["from", "to", "cursor", "limit", "type"];

/// The parameters of totals.
const TOTALS: [&str; 5] = ["granularity", "from", "to", "type", "tz"];

/// The events of one user, newest first.
///
/// In JSON a page at a time; as NDJSON or CSV all there are, as they are read: an answer that ends properly is whole.
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
        (status = 304, description = "What `If-None-Match` names still holds."),
    ),
)]
pub(super) async fn detail(
    State(answers): State<Answers>,
    Extension(who): Extension<Arc<Principal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = accept::negotiate(&headers, &[Format::Json, Format::Ndjson, Format::Csv])?;
    let mut parameters = Parameters::of_url();
    // Not axum's `Path`, which lets a broken escape pass as it is.
    query::read_user_id(uri.path(), &mut parameters);
    query::read(uri.query(), &EVENTS, &mut parameters);
    if format == Format::Json {
        let page = answers.detail(&who, parameters).await?;
        Ok(Json::new(&DetailBody::from(&page))?.respond(&headers))
    } else {
        Ok(export::response(format, answers.events(&who, parameters).await?))
    }
}

/// Everybody's totals by type, by day or by month.
#[utoipa::path(
    get,
    path = "/api/v1/aggregates",
    operation_id = "GetGlobalAgg",
    params(TotalsParameters),
    responses(
        (status = 200, description = "The totals.", body = AggregatesBody),
        (status = 304, description = "What `If-None-Match` names still holds."),
    ),
)]
pub(super) async fn aggregates(
    State(answers): State<Answers>,
    State(cache): State<TotalsCache>,
    Extension(who): Extension<Arc<Principal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    accept::negotiate(&headers, &[Format::Json])?;
    let parameters = || {
        let mut parameters = Parameters::of_url();
        query::read(uri.query(), &TOTALS, &mut parameters);
        parameters
    };
    let write = |answer| {
        let answer = Json::new(&AggregatesBody::from(&answer))?;
        let bytes = answer.bytes();
        Ok::<_, Failure>((answer, bytes))
    };
    let question = uri.query().unwrap_or_default().into();
    Ok(answers.aggregates(&who, &cache, question, parameters, write).await?.respond(&headers))
}

/// One user's totals by type, by day or by month.
#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}/aggregates",
    operation_id = "GetUserAgg",
    params(UserParameter, TotalsParameters),
    responses(
        (status = 200, description = "The totals.", body = UserAggregatesBody),
        (status = 304, description = "What `If-None-Match` names still holds."),
    ),
)]
pub(super) async fn user_aggregates(
    State(answers): State<Answers>,
    Extension(who): Extension<Arc<Principal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    accept::negotiate(&headers, &[Format::Json])?;
    let mut parameters = Parameters::of_url();
    query::read_user_id(uri.path(), &mut parameters);
    query::read(uri.query(), &TOTALS, &mut parameters);
    let answer = answers.user_aggregates(&who, parameters).await?;
    Ok(Json::new(&UserAggregatesBody::from(&answer))?.respond(&headers))
}

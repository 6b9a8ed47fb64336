//! The API over HTTP as data: [OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.1.html), gathered from the handlers.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use netagg_core::{EventType, Granularity};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{IntoParams, OpenApi as _, PartialSchema, ToSchema};

use super::conditional::Json;
#[cfg(feature = "docs-page")]
use super::page;
use super::problem;
use crate::answers::Failure;

const PATH: &str = "/openapi.json";

/// What every question may be answered with instead of an answer.
const FAILURES: [(StatusCode, &str); 12] = [
    (StatusCode::BAD_REQUEST, "Parameters are wrong: `errors` names each, with what is accepted."),
    (StatusCode::UNAUTHORIZED, "Nobody knows who asks. `WWW-Authenticate` says what is wanted."),
    (StatusCode::FORBIDDEN, "These credentials do not cover the question."),
    (StatusCode::METHOD_NOT_ALLOWED, "Neither GET nor HEAD."),
    (StatusCode::NOT_ACCEPTABLE, "`Accept` or `Accept-Encoding` rules out all there is."),
    (StatusCode::REQUEST_TIMEOUT, "The request has a body, which did not come in time."),
    (StatusCode::PAYLOAD_TOO_LARGE, "The request has a body, and a large one."),
    (StatusCode::URI_TOO_LONG, "Path and query are too long."),
    (StatusCode::TOO_MANY_REQUESTS, "Asked too often. `Retry-After` says when to come again."),
    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large."),
    (StatusCode::INTERNAL_SERVER_ERROR, "A bug, most likely. The log of the server says more."),
    (StatusCode::SERVICE_UNAVAILABLE, "Not now. `Retry-After` says when to come again."),
];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "netagg",
        description = "What users of a mobile network did, and what everybody did in sum.\n\n\
            Times are RFC 3339; answers are in UTC, with a fraction only where it isn't zero. Dates are `YYYY-MM-DD`.",
    ),
    components(schemas(problem::Body))
)]
struct Description;

/// The description without paths, which the routes bring along. The API lies below `base_path`.
pub(super) fn description(base_path: Option<&str>) -> OpenApi {
    let mut api = Description::openapi();
    api.servers = Some(vec![utoipa::openapi::Server::new(base_path.unwrap_or("/"))]);
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let key = ApiKeyValue::with_description("X-API-Key", "An API key.");
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
    // By default everybody may ask.
    let requirement = |name: &str| SecurityRequirement::new(name, [] as [&str; 0]);
    api.security = Some(vec![SecurityRequirement::default(), requirement("bearer"), requirement("api_key")]);
    api
}

/// The description and its page, open to everybody: they tell of no user.
pub(super) fn router<S: Clone + Send + Sync + 'static>(mut api: OpenApi) -> Router<S> {
    for item in api.paths.paths.values_mut() {
        if let Some(operation) = &mut item.get {
            tell_failures(operation);
        }
    }
    let api = Arc::new(api);
    let description = async move |headers: HeaderMap| Ok::<_, Failure>(Json::new(&*api)?.respond(&headers));
    let router = Router::new().route(PATH, get(description));
    #[cfg(feature = "docs-page")]
    let router = router.merge(page::router(PATH));
    router
}

fn tell_failures(operation: &mut Operation) {
    for (status, meaning) in FAILURES {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(meaning).content("application/problem+json", content);
        operation.responses.responses.insert(status.as_str().to_owned(), RefOr::T(response.build()));
    }
}

/// Which user.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "a description; a test holds it against what is accepted")]
pub(super) struct UserParameter {
    /// The user.
    #[param(min_length = 1, max_length = 64, pattern = r"^[^\u0000]+$", example = "100000001")]
    user_id: String,
}

/// Which of a user's events.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description; a test holds it against what is accepted")]
pub(super) struct DetailParameters {
    /// The earliest `started_at`, inclusive. Default: 30 days before `to`.
    #[param(value_type = Option<String>, format = DateTime, nullable = false, example = "2025-10-01T00:00:00Z")]
    from: Option<String>,
    /// The latest `started_at`, exclusive. Default: now.
    #[param(value_type = Option<String>, format = DateTime, nullable = false, example = "2025-11-01T00:00:00Z")]
    to: Option<String>,
    /// `next_cursor` of the page before, which was of the same user, range and type.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    /// The most events to return. Default: 100; as NDJSON or CSV, all there are.
    #[param(minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<u32>,
    /// Only events of this type. Default: all.
    #[param(value_type = Option<EventTypeName>, nullable = false, inline)]
    r#type: Option<String>,
}

/// Which totals.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description; a test holds it against what is accepted")]
pub(super) struct TotalsParameters {
    /// By days or by months.
    #[param(value_type = GranularityName, inline)]
    granularity: String,
    /// The first date, inclusive; of months, the day is ignored. Default: such that the range has 30 days.
    #[param(value_type = Option<String>, format = Date, nullable = false, example = "2025-10-01")]
    from: Option<String>,
    /// The last date, inclusive; of months, the day is ignored. Default: today in `tz`. The range has 3653 days at
    /// most, and everybody's 93 where `tz` isn't UTC.
    #[param(value_type = Option<String>, format = Date, nullable = false, example = "2025-10-31")]
    to: Option<String>,
    /// Only events of this type. Default: all.
    #[param(value_type = Option<EventTypeName>, nullable = false, inline)]
    r#type: Option<String>,
    /// Whose days and months: a name of the IANA time zone database. Default: UTC.
    #[param(min_length = 1, nullable = false, example = "Europe/Moscow")]
    tz: Option<String>,
}

/// The names of types, as the code knows them.
pub(super) struct EventTypeName;

impl PartialSchema for EventTypeName {
    fn schema() -> RefOr<Schema> {
        one_of("What was used: calls, SMS or data.", EventType::ALL.map(EventType::as_str))
    }
}

impl ToSchema for EventTypeName {}

/// The names of granularities, as the code knows them.
pub(super) struct GranularityName;

impl PartialSchema for GranularityName {
    fn schema() -> RefOr<Schema> {
        one_of("By days or by months.", [Granularity::Day, Granularity::Month].map(Granularity::as_str))
    }
}

impl ToSchema for GranularityName {}

fn one_of<const N: usize>(meaning: &str, names: [&'static str; N]) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).description(Some(meaning)).enum_values(Some(names)).into()
}

//! The description of the HTTP API: [OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.1.html), collected from the handlers.

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

#[cfg(feature = "docs-page")]
use super::docs_page;
use super::etag::Tagged;
use super::problem;
use crate::handlers::HandlerError;

const PATH: &str = "/openapi.json";

/// The error responses that every request may get.
const FAILURES: [(StatusCode, &str); 12] = [
    (StatusCode::BAD_REQUEST, "Parameters are wrong. `errors` names each wrong parameter and the accepted values."),
    (StatusCode::UNAUTHORIZED, "Credentials are missing or not valid. `WWW-Authenticate` names the required scheme."),
    (StatusCode::FORBIDDEN, "The credentials do not allow this request."),
    (StatusCode::METHOD_NOT_ALLOWED, "The method is neither GET nor HEAD."),
    (StatusCode::NOT_ACCEPTABLE, "`Accept` or `Accept-Encoding` excludes every available format or encoding."),
    (StatusCode::REQUEST_TIMEOUT, "The request has a body that did not arrive in time."),
    (StatusCode::PAYLOAD_TOO_LARGE, "The request has a body that is too large."),
    (StatusCode::URI_TOO_LONG, "The path and query are too long."),
    (StatusCode::TOO_MANY_REQUESTS, "The caller exceeded its rate limit. `Retry-After` says when to retry."),
    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large."),
    (StatusCode::INTERNAL_SERVER_ERROR, "An internal error, most likely a bug. The log of the server has the reason."),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "The server is overloaded, or a dependency is unavailable. `Retry-After` says when to retry.",
    ),
];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "netagg",
        description = "Usage events of single users of a mobile network, and totals of the events.\n\n\
            Times are RFC 3339. Responses use UTC, with a fraction of a second only if it is not zero. Dates are `YYYY-MM-DD`.",
    ),
    components(schemas(problem::Body))
)]
struct Description;

/// The description of an API below `base_path`, without its paths: the routes add them.
pub(super) fn description(base_path: Option<&str>) -> OpenApi {
    let mut api = Description::openapi();
    api.servers = Some(vec![utoipa::openapi::Server::new(base_path.unwrap_or("/"))]);
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let key = ApiKeyValue::with_description("X-API-Key", "An API key.");
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
    // The empty requirement is for an API without authentication.
    let requirement = |name: &str| SecurityRequirement::new(name, [] as [&str; 0]);
    api.security = Some(vec![SecurityRequirement::default(), requirement("bearer"), requirement("api_key")]);
    api
}

/// The routes of the description and of its page. They are open to every caller, because they contain no data of users.
pub(super) fn router<S: Clone + Send + Sync + 'static>(mut api: OpenApi) -> Router<S> {
    for item in api.paths.paths.values_mut() {
        if let Some(operation) = &mut item.get {
            add_failures(operation);
        }
    }
    let api = Arc::new(api);
    let description = async move |headers: HeaderMap| Ok::<_, HandlerError>(Tagged::json(&*api)?.respond(&headers));
    let router = Router::new().route(PATH, get(description));
    #[cfg(feature = "docs-page")]
    let router = router.merge(docs_page::router(PATH));
    router
}

fn add_failures(operation: &mut Operation) {
    for (status, meaning) in FAILURES {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(meaning).content("application/problem+json", content);
        operation.responses.responses.insert(status.as_str().to_owned(), RefOr::T(response.build()));
    }
}

/// The parameter that selects the user.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only a description; a test compares it with the accepted parameters")]
pub(super) struct UserParameter {
    /// The id of the user.
    #[param(min_length = 1, max_length = 64, pattern = r"^[^\u0000]+$", example = "100000001")]
    user_id: String,
}

/// The parameters that select events of a user.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only a description; a test compares it with the accepted parameters")]
pub(super) struct DetailParameters {
    /// The earliest `started_at`, inclusive. Default: 30 days before `to`.
    #[param(value_type = Option<String>, format = DateTime, nullable = false, example = "2025-10-01T00:00:00Z")]
    from: Option<String>,
    /// The latest `started_at`, exclusive. Default: now.
    #[param(value_type = Option<String>, format = DateTime, nullable = false, example = "2025-11-01T00:00:00Z")]
    to: Option<String>,
    /// `next_cursor` of the previous page, which must have the same user, range and type.
    #[param(nullable = false, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    /// The maximum number of events to return. Default: 100; for NDJSON and CSV, all events.
    #[param(minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<u32>,
    /// Only events of this type. Default: all.
    #[param(value_type = Option<EventTypeName>, nullable = false, inline)]
    r#type: Option<String>,
}

/// The parameters that select totals.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only a description; a test compares it with the accepted parameters")]
pub(super) struct TotalsParameters {
    /// Totals by day or by month.
    #[param(value_type = GranularityName, inline)]
    granularity: String,
    /// The first date, inclusive. For months, the day is ignored. By default the range has 30 days.
    #[param(value_type = Option<String>, format = Date, nullable = false, example = "2025-10-01")]
    from: Option<String>,
    /// The last date, inclusive. For months, the day is ignored. Default: today in `tz`. The range has at most 3653 days. For
    /// the totals of all users in a zone other than UTC, it has at most 93 days.
    #[param(value_type = Option<String>, format = Date, nullable = false, example = "2025-10-31")]
    to: Option<String>,
    /// Only events of this type. Default: all.
    #[param(value_type = Option<EventTypeName>, nullable = false, inline)]
    r#type: Option<String>,
    /// The time zone of the days and months: a name of the IANA time zone database. Default: UTC.
    #[param(min_length = 1, nullable = false, example = "Europe/Moscow")]
    tz: Option<String>,
}

/// The names of event types, taken from the code.
pub(super) struct EventTypeName;

impl PartialSchema for EventTypeName {
    fn schema() -> RefOr<Schema> {
        one_of("The type of the usage: calls, SMS or data.", EventType::ALL.map(EventType::as_str))
    }
}

impl ToSchema for EventTypeName {}

/// The names of granularities, taken from the code.
pub(super) struct GranularityName;

impl PartialSchema for GranularityName {
    fn schema() -> RefOr<Schema> {
        one_of("By day or by month.", [Granularity::Day, Granularity::Month].map(Granularity::as_str))
    }
}

impl ToSchema for GranularityName {}

fn one_of<const N: usize>(meaning: &str, names: [&'static str; N]) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).description(Some(meaning)).enum_values(Some(names)).into()
}

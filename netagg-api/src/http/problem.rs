//! Errors as `application/problem+json`, [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).

use std::time::Duration;

use crate::auth::Forbidden;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use netagg_core::usage::InvalidQuery;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Rejection;
use crate::handlers::HandlerError;
use crate::trace::current_trace_id;

/// When a client should retry after 503, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// An error response. Its type is always `about:blank`, because the status has the full meaning.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<ParameterError>,
    /// The value of `WWW-Authenticate`.
    challenge: Option<HeaderValue>,
}

/// A wrong parameter.
#[derive(Debug, Serialize, ToSchema)]
struct ParameterError {
    /// The name of the parameter.
    parameter: String,
    /// The value in the request.
    found: String,
    /// The accepted values.
    accepted: String,
}

impl Problem {
    pub(super) fn not_found(path: &str) -> Self {
        let path: String = path.chars().take(100).collect();
        Self::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}"))
    }

    pub(super) fn method_not_allowed(method: &Method) -> Self {
        let method: String = method.as_str().chars().take(20).collect();
        Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("found {method}; accepted: GET or HEAD"))
    }

    pub(super) fn uri_too_long(max_bytes: usize) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, format!("path and query of at most {max_bytes} bytes are accepted"))
    }

    pub(super) fn head_too_large(max_bytes: usize) -> Self {
        let detail = format!("a request line and headers of at most {max_bytes} bytes together are accepted");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
    }

    /// A proxy before the API may have interpreted the request differently (RFC 9112, 3.2).
    pub(super) fn wrong_host() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "exactly one Host header is accepted: a name or an address, with or without a port",
        )
    }

    pub(super) fn body_broken() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the body is incomplete or broken")
    }

    pub(super) fn body_too_slow(timeout: Duration) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, format!("a body that arrives within {timeout:?} is accepted"))
    }

    /// The header `name` of the client excludes every available format or encoding.
    pub(super) fn not_acceptable(name: &str, found: &str, available: &str) -> Self {
        let found: String = found.chars().take(100).collect();
        let detail = format!("{name}: found {found}; available: {available}");
        Self::new(StatusCode::NOT_ACCEPTABLE, detail)
    }

    pub(super) fn body_too_large(max_bytes: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body of at most {max_bytes} bytes is accepted"))
    }

    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new(), challenge: None }
    }
}

impl From<InvalidQuery> for Problem {
    fn from(query: InvalidQuery) -> Self {
        let detail = query.to_string();
        let errors = query.problems.into_iter().map(|problem| ParameterError {
            parameter: problem.name,
            found: problem.found,
            accepted: problem.accepted,
        });
        Self { errors: errors.collect(), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }
}

impl From<Forbidden> for Problem {
    fn from(forbidden: Forbidden) -> Self {
        let challenge = match forbidden {
            Forbidden::Scope(scope) => format!(r#"Bearer realm="netagg", error="insufficient_scope", scope="{scope}""#),
            Forbidden::User => r#"Bearer realm="netagg", error="insufficient_scope""#.to_owned(),
        };
        let challenge = HeaderValue::try_from(challenge).ok();
        Self { challenge, ..Self::new(StatusCode::FORBIDDEN, forbidden.to_string()) }
    }
}

impl From<&Rejection> for Problem {
    fn from(rejection: &Rejection) -> Self {
        let status = match rejection {
            Rejection::NoCredentials | Rejection::BadCredentials(_) => StatusCode::UNAUTHORIZED,
            Rejection::TooMany(..) => StatusCode::TOO_MANY_REQUESTS,
            Rejection::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::UnknownPeer => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let challenge = rejection.challenge().map(HeaderValue::from_static);
        Self { challenge, ..Self::new(status, rejection.detail()) }
    }
}

impl From<HandlerError> for Problem {
    fn from(failure: HandlerError) -> Self {
        match failure {
            HandlerError::Invalid(query) => query.into(),
            HandlerError::Forbidden(forbidden) => forbidden.into(),
            HandlerError::Overloaded => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is overloaded; please retry later")
            }
            HandlerError::Unavailable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the request cannot be answered now; please retry later")
            }
            HandlerError::Internal => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the log of the server has the reason")
            }
        }
    }
}

/// The response for a path that the API does not have.
pub(super) async fn not_found(uri: Uri) -> Response {
    Problem::not_found(uri.path()).into_response()
}

/// The response for a method that the path does not support.
pub(super) async fn method_not_allowed(method: Method) -> Response {
    Problem::method_not_allowed(&method).into_response()
}

/// An error, in the form of [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    /// Always `about:blank`: the status has the full meaning.
    r#type: &'static str,
    /// The name of the status.
    title: &'a str,
    /// The status of the response.
    status: u16,
    /// The exact reason, for people.
    detail: &'a str,
    /// The wrong parameters.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ParameterError],
    /// The id of the trace of the request, if the server is traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let trace_id = current_trace_id();
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            trace_id: trace_id.as_deref(),
        };
        // The body has only strings and numbers, so the encoding cannot fail.
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, content_type)], json).into_response();
        // The `cache_headers` layer compares this status with the status of the response, to recognise a 406 of another layer.
        response.extensions_mut().insert(self.status);
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl IntoResponse for HandlerError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

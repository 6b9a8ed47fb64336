//! Errors as `application/problem+json`, [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).

use std::time::Duration;

use crate::auth::Forbidden;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use netagg_core::usage::InvalidQuery;
use serde::Serialize;
use utoipa::ToSchema;

use crate::answers::Failure;
use crate::auth::Refusal;

/// When to ask again for what is unavailable, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// What went wrong. Its type is always `about:blank`: it means no more than its status.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<ParameterError>,
    /// What `WWW-Authenticate` says.
    challenge: Option<HeaderValue>,
}

/// What is wrong with a parameter.
#[derive(Debug, Serialize, ToSchema)]
struct ParameterError {
    /// Its name.
    parameter: String,
    /// What it was.
    found: String,
    /// What it may be.
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

    /// A proxy before the API may have read the request differently (RFC 9112, 3.2).
    pub(super) fn wrong_host() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "one Host header is accepted: a name or an address, maybe with a port")
    }

    pub(super) fn body_broken() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the body breaks off")
    }

    pub(super) fn body_too_slow(timeout: Duration) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, format!("a body that arrives within {timeout:?} is accepted"))
    }

    /// The client's own header `name` rules out everything there is.
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

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::NoCredentials | Refusal::BadCredentials(_) => StatusCode::UNAUTHORIZED,
            Refusal::TooMany(..) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::UnknownPeer => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let challenge = refusal.challenge().map(HeaderValue::from_static);
        Self { challenge, ..Self::new(status, refusal.detail()) }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Invalid(query) => query.into(),
            Failure::Forbidden(forbidden) => forbidden.into(),
            Failure::Overloaded => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "too much is asked at the moment; please ask again later")
            }
            Failure::Unavailable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "this cannot be answered now; please ask again later")
            }
            Failure::Internal => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "this cannot be answered; the log of the server says why")
            }
        }
    }
}

/// Answers a path that is none of the API's.
pub(super) async fn not_found(uri: Uri) -> Response {
    Problem::not_found(uri.path()).into_response()
}

/// Answers a method that a path does not have.
pub(super) async fn method_not_allowed(method: Method) -> Response {
    Problem::method_not_allowed(&method).into_response()
}

/// What went wrong, as [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) has it.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    /// Always `about:blank`: it means no more than its status.
    r#type: &'static str,
    /// The status in words.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// What exactly is wrong, for people.
    detail: &'a str,
    /// The parameters that are wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ParameterError],
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        // Strings and a number into memory: this cannot fail.
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, content_type)], json).into_response();
        // For whoever finds another one on it.
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

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

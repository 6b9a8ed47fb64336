//! Why a request is rejected before the server parses it.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::RETRY_AFTER;

use super::rate_limiter::{Quota, seconds};

/// Why a request is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The request has no credentials.
    NoCredentials,
    /// The credentials are wrong. The text may be shown to the caller: it never says which part of a secret is wrong.
    BadCredentials(&'static str),
    /// The caller exceeded its rate limit: its quota, and the time until the next request is accepted.
    TooMany(Quota, Duration),
    /// The credentials cannot be checked now.
    Unavailable,
    /// The rate limit counts callers by address, and the server does not provide the address.
    UnknownPeer,
}

impl Rejection {
    /// The text for the caller.
    pub(crate) fn detail(&self) -> &'static str {
        match self {
            Self::NoCredentials => {
                "credentials are needed: the header Authorization: Bearer <key or token>, or X-API-Key: <key>"
            }
            Self::BadCredentials(why) => why,
            Self::TooMany(..) => "too many requests; Retry-After says when the next request is accepted",
            Self::Unavailable => "credentials cannot be checked now; please retry later",
            Self::UnknownPeer => {
                "requests are limited by address, but this server does not know the address; its log has the solution"
            }
        }
    }

    /// The value of `WWW-Authenticate`, if other credentials could help.
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::NoCredentials => Some(r#"Bearer realm="netagg""#),
            Self::BadCredentials(_) => Some(r#"Bearer realm="netagg", error="invalid_token""#),
            Self::TooMany(..) | Self::Unavailable | Self::UnknownPeer => None,
        }
    }

    /// The label of the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::BadCredentials(_) => "bad_credentials",
            Self::TooMany(..) => "rate_limit",
            Self::Unavailable => "unavailable",
            Self::UnknownPeer => "unknown_peer",
        }
    }
}

impl Rejection {
    /// Writes the headers of the response, for both transports.
    pub(super) fn write_headers(&self, headers: &mut HeaderMap) {
        if let Self::TooMany(quota, wait) = self {
            quota.write_headers(headers);
            headers.insert(RETRY_AFTER, seconds(*wait));
        }
    }
}

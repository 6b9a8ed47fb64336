//! Why a request is not answered, before its question is looked at.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::RETRY_AFTER;

use super::quota::{self, Quota};

/// Why a question is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request has no credentials.
    NoCredentials,
    /// What they show is wrong, for a reason that is theirs to know: never which part of it.
    BadCredentials(&'static str),
    /// The caller exceeded its rate limit: its quota, and the time until the next request is answered.
    TooMany(Quota, Duration),
    /// What they show cannot be checked now.
    Unavailable,
    /// Callers are counted by their address, which the server does not tell.
    UnknownPeer,
}

impl Refusal {
    /// The text for the caller.
    pub(crate) fn detail(&self) -> &'static str {
        match self {
            Self::NoCredentials => {
                "credentials are needed: the header Authorization: Bearer <key or token>, or X-API-Key: <key>"
            }
            Self::BadCredentials(why) => why,
            Self::TooMany(..) => "too many requests; Retry-After says when the next one is answered",
            Self::Unavailable => "credentials cannot be checked now; please ask again later",
            Self::UnknownPeer => {
                "requests are limited by address, and this server does not know it; its log says how to mend that"
            }
        }
    }

    /// The value of `WWW-Authenticate`, for those whom credentials would help.
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

impl Refusal {
    /// Writes the headers of the answer, over both transports.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if let Self::TooMany(quota, wait) = self {
            quota.tell(headers);
            headers.insert(RETRY_AFTER, quota::seconds(*wait));
        }
    }
}

//! Who may ask the API, decided before a question is looked at.

mod credentials;
mod guard;
mod key_file;
mod key_ring;

use std::sync::Arc;

use axum::http::HeaderMap;
use netagg_core::access::{ApiKeyToken, Principal};
use netagg_core::ports::ApiKeys;
use tokio_util::sync::CancellationToken;

pub(crate) use guard::GuardLayer;
pub use key_file::ApiKeyFile;

use credentials::Credentials;
use key_ring::KeyRing;

/// What guards the servers: both of an API share one. The default lets everybody ask everything.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    keys: Option<Arc<KeyRing>>,
}

/// Why a question is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody knows who asks.
    NoCredentials,
    /// What they show is wrong, for a reason that is theirs to know: never which part of it.
    BadCredentials(&'static str),
    /// What they show cannot be checked now.
    Unavailable,
}

impl Refusal {
    /// What the caller is told.
    pub(crate) fn detail(&self) -> &'static str {
        match self {
            Self::NoCredentials => {
                "credentials are needed: the header Authorization: Bearer <key or token>, or X-API-Key: <key>"
            }
            Self::BadCredentials(why) => why,
            Self::Unavailable => "credentials cannot be checked now; please ask again later",
        }
    }

    /// The value of `WWW-Authenticate`, for those whom credentials would help.
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::NoCredentials => Some(r#"Bearer realm="netagg""#),
            Self::BadCredentials(_) => Some(r#"Bearer realm="netagg", error="invalid_token""#),
            Self::Unavailable => None,
        }
    }

    /// As the metrics name it.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::BadCredentials(_) => "bad_credentials",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Protection {
    /// Lets in who shows one of `keys`. They are read again every few seconds by [`keep_up`](Self::keep_up), without
    /// which nobody gets in.
    #[must_use]
    pub fn with_keys(self, keys: Arc<dyn ApiKeys>) -> Self {
        Self { keys: Some(Arc::new(KeyRing::new(keys))) }
    }

    /// Keeps what it decides by up to date until `shutdown`.
    pub async fn keep_up(&self, shutdown: &CancellationToken) {
        if let Some(keys) = &self.keys {
            keys.keep_up(shutdown).await;
        }
    }

    /// Whether everybody gets in, whoever they are.
    pub fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// Whether credentials can be checked now.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn check(&self) -> Result<(), String> {
        self.keys.as_ref().map_or(Ok(()), |keys| keys.check())
    }

    /// Who asks with `headers`.
    async fn admit(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Refusal> {
        let admitted = self.authenticate(headers).await;
        if let Err(refusal) = &admitted {
            metrics::counter!("netagg_refused_requests_total", "reason" => refusal.reason()).increment(1);
        }
        admitted
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Refusal> {
        let Some(keys) = &self.keys else { return Ok(Arc::new(Principal::anybody())) };
        let credentials = Credentials::of(headers)?;
        let token: ApiKeyToken = credentials.text().parse().map_err(|_| key_ring::UNKNOWN)?;
        keys.holder_of(&token)
    }
}

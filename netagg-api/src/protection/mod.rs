//! Who may ask the API, decided before a question is looked at.

mod credentials;
mod guard;
mod key_file;
mod key_ring;
#[cfg(feature = "jwt")]
mod key_set;
mod known;
mod peer;
mod rates;
#[cfg(feature = "jwt")]
mod tokens;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{Extensions, HeaderMap, HeaderValue};
use ipnet::IpNet;
use netagg_core::access::{ApiKeyToken, Principal, RateLimit};
use netagg_core::ports::ApiKeys;
use tokio_util::sync::CancellationToken;

pub(crate) use guard::GuardLayer;
pub use key_file::ApiKeyFile;
#[cfg(feature = "jwt")]
pub use key_set::{InvalidKeySetUrl, KeySet, KeySetFile, KeySetUrl};
pub(crate) use rates::Standing;
#[cfg(feature = "jwt")]
pub use tokens::TokenIssuer;

use credentials::Credentials;
use key_ring::KeyRing;
use rates::{Caller, Rates};
#[cfg(feature = "jwt")]
use tokens::Tokens;

#[cfg(feature = "tls")]
use crate::tls::Tls;

/// What guards the servers: both of an API share one. The default lets everybody ask everything.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    keys: Option<Arc<KeyRing>>,
    #[cfg(feature = "jwt")]
    tokens: Option<Arc<Tokens>>,
    rate_limit: Option<RateLimit>,
    rates: Arc<Rates>,
    /// Logs once that addresses are not known.
    unknown_peer: Arc<OnceLock<()>>,
    trusted_proxies: Arc<[IpNet]>,
    cors_origins: Arc<[HeaderValue]>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

/// Who is let in.
#[derive(Debug)]
pub(crate) struct Admission {
    principal: Arc<Principal>,
    /// What is left to them, where that is limited.
    standing: Option<Standing>,
}

/// Why a question is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody knows who asks.
    NoCredentials,
    /// What they show is wrong, for a reason that is theirs to know: never which part of it.
    BadCredentials(&'static str),
    /// They have asked too often: what is told of that, and when to come again.
    TooMany(Standing, Duration),
    /// What they show cannot be checked now.
    Unavailable,
    /// Callers are counted by their address, which the server does not tell.
    UnknownPeer,
}

impl Refusal {
    /// What the caller is told.
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

    /// As the metrics name it.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::BadCredentials(_) => "bad_credentials",
            Self::TooMany(..) => "rate_limit",
            Self::Unavailable => "unavailable",
            Self::UnknownPeer => "unknown_peer",
        }
    }
}

impl Protection {
    /// Lets in who shows one of `keys`. They are read again every few seconds by [`keep_up`](Self::keep_up), without
    /// which nobody gets in.
    #[must_use]
    pub fn with_keys(self, keys: Arc<dyn ApiKeys>) -> Self {
        Self { keys: Some(Arc::new(KeyRing::new(keys))), ..self }
    }

    /// Lets in who shows a token of `issuer`. Its keys are read again by [`keep_up`](Self::keep_up), without which nobody
    /// gets in.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn with_tokens(self, issuer: TokenIssuer) -> Self {
        Self { tokens: Some(Arc::new(Tokens::new(issuer))), ..self }
    }

    /// Lets nobody ask more often than `limit`, unless their key says otherwise. Those whom nobody knows, or who fail to
    /// prove who they are, are counted by their address.
    ///
    /// The servers of this crate know the address. Serve the [`router`](crate::router) on another server with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, or put axum's `ConnectInfo<SocketAddr>` into the extensions
    /// of each request. A request whose address is not known is refused with status 500, whatever credentials it has:
    /// the limit also bounds the guessing of keys.
    #[must_use]
    pub fn with_rate_limit(self, limit: RateLimit) -> Self {
        Self { rate_limit: Some(limit), ..self }
    }

    /// Believes what proxies in these networks say of their clients' addresses (`X-Forwarded-For`), and nobody else.
    #[must_use]
    pub fn with_trusted_proxies(self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self { trusted_proxies: networks.into_iter().collect(), ..self }
    }

    /// Lets pages of these origins ask over HTTP, such as `https://app.example`; `*` is any.
    #[must_use]
    pub fn with_cors_origins(self, origins: impl IntoIterator<Item = HeaderValue>) -> Self {
        Self { cors_origins: origins.into_iter().collect(), ..self }
    }

    /// Lets in over TLS alone. This holds for [`serve_http`](crate::serve_http) and [`serve_grpc`](crate::serve_grpc);
    /// another server has to do its own. Its files are read again by [`keep_up`](Self::keep_up).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// How connections are encrypted, if they are.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Whether the servers encrypt.
    pub(crate) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// The origins whose pages may ask.
    pub(crate) fn cors_origins(&self) -> &[HeaderValue] {
        &self.cors_origins
    }

    /// Keeps what it decides by up to date until `shutdown`.
    pub async fn keep_up(&self, shutdown: &CancellationToken) {
        let keys = async {
            if let Some(keys) = &self.keys {
                keys.keep_up(shutdown).await;
            }
        };
        let tls = async {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                tls.keep_up(shutdown).await;
            }
        };
        let tokens = async {
            #[cfg(feature = "jwt")]
            if let Some(tokens) = &self.tokens {
                tokens.keep_up(shutdown).await;
            }
        };
        tokio::join!(keys, tokens, tls);
    }

    /// Whether everybody gets in, whoever they are.
    pub fn is_open(&self) -> bool {
        #[cfg(feature = "jwt")]
        if self.tokens.is_some() {
            return false;
        }
        self.keys.is_none()
    }

    /// Whether credentials can be checked now.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn check(&self) -> Result<(), String> {
        #[cfg(feature = "jwt")]
        self.tokens.as_ref().map_or(Ok(()), |tokens| tokens.check())?;
        self.keys.as_ref().map_or(Ok(()), |keys| keys.check())
    }

    /// Who asks with `headers`, and whether they may ask now.
    fn admit(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Admission, Refusal> {
        let admitted = self.decide(headers, extensions);
        if let Err(refusal) = &admitted {
            metrics::counter!("netagg_refused_requests_total", "reason" => refusal.reason()).increment(1);
        }
        admitted
    }

    fn decide(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Admission, Refusal> {
        let count = |caller: Option<Caller>, limit: Option<RateLimit>| match (caller, limit) {
            (Some(caller), Some(limit)) => match self.rates.count(caller, limit) {
                Ok(standing) => Ok(Some(standing)),
                Err((standing, wait)) => Err(Refusal::TooMany(standing, wait)),
            },
            _ => Ok(None),
        };
        let peer = peer::peer(extensions);
        if self.rate_limit.is_some() && peer.is_none() {
            self.unknown_peer.get_or_init(|| {
                tracing::error!(
                    "requests are refused: the rate limit counts callers by address, and the server does not tell it; \
                     serve the router with into_make_service_with_connect_info::<SocketAddr>()"
                );
            });
            return Err(Refusal::UnknownPeer);
        }
        let address = || Some(Caller::At(peer::client_address(peer?, headers, &self.trusted_proxies)));
        match self.authenticate(headers) {
            Ok((principal, caller)) => {
                let limit = principal.rate_limit.or(self.rate_limit);
                let caller = caller.or_else(address);
                Ok(Admission { standing: count(caller, limit)?, principal })
            }
            Err(refusal @ Refusal::Unavailable) => Err(refusal),
            Err(refusal) => Err(count(address(), self.rate_limit).err().unwrap_or(refusal)),
        }
    }

    /// Who asks, and as whom they are counted, if anybody knows them.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(Arc<Principal>, Option<Caller>), Refusal> {
        if self.is_open() {
            return Ok((Arc::new(Principal::anybody()), None));
        }
        let credentials = Credentials::of(headers)?;
        let shown = credentials.text();
        if let Ok(key) = shown.parse::<ApiKeyToken>() {
            let keys = self.keys.as_ref().ok_or(key_ring::UNKNOWN)?;
            let principal = keys.holder_of(&key)?;
            return Ok((principal, Some(Caller::Known(key.id().as_str().into()))));
        }
        #[cfg(feature = "jwt")]
        if let Some(tokens) = &self.tokens {
            let holder = tokens.holder_of(shown)?;
            return Ok((holder.principal, Some(Caller::Known(holder.caller))));
        }
        Err(key_ring::UNKNOWN)
    }
}

impl Refusal {
    /// What goes with it, over both transports.
    fn tell(&self, headers: &mut HeaderMap) {
        if let Self::TooMany(standing, wait) = self {
            standing.tell(headers);
            headers.insert(RETRY_AFTER, rates::seconds(*wait));
        }
    }
}

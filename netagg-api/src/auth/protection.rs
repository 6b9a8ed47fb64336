//! The protection of both servers: credentials, rate limits, encryption and CORS origins.

use std::sync::{Arc, OnceLock};

use axum::http::{Extensions, HeaderMap, HeaderValue};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::api_key::ApiKeyToken;
use super::api_keys::ApiKeys;
use super::client_ip;
use super::credentials::Credentials;
#[cfg(feature = "jwt")]
use super::jwt::{TokenIssuer, Tokens};
use super::known_keys::{self, KnownKeys};
use super::principal::Principal;
use super::rate_limit::RateLimit;
use super::rate_limiter::{CallerId, CallerRateLimiter, Quota};
use super::rejection::Rejection;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// The protection of an API. Its HTTP and gRPC servers share one protection. The default allows every request of every caller.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    keys: Option<Arc<KnownKeys>>,
    #[cfg(feature = "jwt")]
    tokens: Option<Arc<Tokens>>,
    rate_limit: Option<RateLimit>,
    rate_limiter: Arc<CallerRateLimiter>,
    /// Set once the log has the error that addresses are not known.
    unknown_peer: Arc<OnceLock<()>>,
    trusted_proxies: Arc<[IpNet]>,
    cors_origins: Arc<[HeaderValue]>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

/// An accepted caller.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) principal: Arc<Principal>,
    /// The remaining quota, if the caller has a rate limit.
    pub(super) quota: Option<Quota>,
}

impl Protection {
    /// Accepts callers with one of `keys`. [`refresh_loop`](Self::refresh_loop) reads the keys again every few seconds. Without
    /// it no caller is accepted.
    #[must_use]
    pub fn with_keys(self, keys: Arc<dyn ApiKeys>) -> Self {
        Self { keys: Some(Arc::new(KnownKeys::new(keys))), ..self }
    }

    /// Accepts callers with a token of `issuer`. [`refresh_loop`](Self::refresh_loop) reads the issuer's keys again. Without it
    /// no caller is accepted.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn with_tokens(self, issuer: TokenIssuer) -> Self {
        Self { tokens: Some(Arc::new(Tokens::new(issuer))), ..self }
    }

    /// Limits how often each caller may send requests. A key with its own limit overrides `limit`. Requests without valid
    /// credentials are counted by client address.
    ///
    /// The servers of this crate know the client address. To serve [`Server::router`](crate::Server::router) on another server,
    /// use `into_make_service_with_connect_info::<SocketAddr>()`, or put axum's `ConnectInfo<SocketAddr>` into the extensions
    /// of each request. A request without a known address is rejected with status 500, even if its credentials are valid: the
    /// limit also bounds attempts to guess keys.
    #[must_use]
    pub fn with_rate_limit(self, limit: RateLimit) -> Self {
        Self { rate_limit: Some(limit), ..self }
    }

    /// Trusts the client addresses in `X-Forwarded-For` only if they come from proxies in these networks.
    #[must_use]
    pub fn with_trusted_proxies(self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self { trusted_proxies: networks.into_iter().collect(), ..self }
    }

    /// Allows web pages of these origins, such as `https://app.example`, to call the API over HTTP (CORS). `*` means any
    /// origin.
    #[must_use]
    pub fn with_cors_origins(self, origins: impl IntoIterator<Item = HeaderValue>) -> Self {
        Self { cors_origins: origins.into_iter().collect(), ..self }
    }

    /// Accepts only connections with TLS. This applies to [`Server::serve_http`](crate::Server::serve_http) and
    /// [`Server::serve_grpc`](crate::Server::serve_grpc). A server of the application needs its own TLS.
    /// [`refresh_loop`](Self::refresh_loop) reads the files of `tls` again.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The TLS configuration, if connections are encrypted.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Whether the servers use TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// The origins whose pages may call the API.
    pub(crate) fn cors_origins(&self) -> &[HeaderValue] {
        &self.cors_origins
    }

    /// Reads API keys, the issuer's keys and certificates again, until `shutdown`.
    pub async fn refresh_loop(&self, shutdown: &CancellationToken) {
        let keys = async {
            if let Some(keys) = &self.keys {
                keys.refresh_loop(shutdown).await;
            }
        };
        let tls = async {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                tls.refresh_loop(shutdown).await;
            }
        };
        let tokens = async {
            #[cfg(feature = "jwt")]
            if let Some(tokens) = &self.tokens {
                tokens.refresh_loop(shutdown).await;
            }
        };
        tokio::join!(keys, tokens, tls);
    }

    /// Whether every caller is accepted, because the API has neither keys nor an issuer.
    pub fn is_open(&self) -> bool {
        #[cfg(feature = "jwt")]
        if self.tokens.is_some() {
            return false;
        }
        self.keys.is_none()
    }

    /// Checks that credentials can be verified now.
    ///
    /// # Errors
    /// The reason, if they cannot be verified.
    pub fn check(&self) -> Result<(), String> {
        #[cfg(feature = "jwt")]
        self.tokens.as_ref().map_or(Ok(()), |tokens| tokens.check())?;
        self.keys.as_ref().map_or(Ok(()), |keys| keys.check())
    }

    /// Authenticates the caller by `headers` and counts the request for its rate limit. Counts a rejection in the metrics.
    pub(super) fn admit(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Rejection> {
        let admitted = self.decide(headers, extensions);
        if let Err(rejection) = &admitted {
            metrics::counter!("netagg_requests_rejected_total", "reason" => rejection.reason()).increment(1);
        }
        admitted
    }

    fn decide(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Rejection> {
        let count = |caller: Option<CallerId>, limit: Option<RateLimit>| match (caller, limit) {
            (Some(caller), Some(limit)) => match self.rate_limiter.count(caller, limit) {
                Ok(quota) => Ok(Some(quota)),
                Err((quota, wait)) => Err(Rejection::TooMany(quota, wait)),
            },
            _ => Ok(None),
        };
        let peer = client_ip::peer(extensions);
        if self.rate_limit.is_some() && peer.is_none() {
            self.unknown_peer.get_or_init(|| {
                tracing::error!(
                    "rejecting all requests: the rate limit needs the client address, and the server does not provide it; \
                     serve the router with into_make_service_with_connect_info::<SocketAddr>()"
                );
            });
            return Err(Rejection::UnknownPeer);
        }
        let address = || Some(CallerId::at(client_ip::client_address(peer?, headers, &self.trusted_proxies)));
        match self.authenticate(headers) {
            Ok((principal, caller)) => {
                let limit = principal.rate_limit.or(self.rate_limit);
                let caller = caller.or_else(address);
                Ok(Caller { quota: count(caller, limit)?, principal })
            }
            Err(rejection @ Rejection::Unavailable) => Err(rejection),
            Err(rejection) => Err(count(address(), self.rate_limit).err().unwrap_or(rejection)),
        }
    }

    /// Returns the principal, and the id under which the rate limit counts the caller. `None` means by client address.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(Arc<Principal>, Option<CallerId>), Rejection> {
        if self.is_open() {
            return Ok((Arc::new(Principal::anybody()), None));
        }
        let credentials = Credentials::of(headers)?;
        let text = credentials.text();
        if let Ok(key) = text.parse::<ApiKeyToken>() {
            let keys = self.keys.as_ref().ok_or(known_keys::UNKNOWN)?;
            let principal = keys.holder_of(&key)?;
            return Ok((principal, Some(CallerId::Known(key.id().as_str().into()))));
        }
        #[cfg(feature = "jwt")]
        if let Some(tokens) = &self.tokens {
            let holder = tokens.holder_of(text)?;
            return Ok((holder.principal, Some(CallerId::Known(holder.caller))));
        }
        Err(known_keys::UNKNOWN)
    }
}

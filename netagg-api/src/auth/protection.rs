//! The protection of both servers: credentials, limits, encryption and origins.

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
use super::quota::{CallerId, Quota, Rates};
use super::rate_limit::RateLimit;
use super::refusal::Refusal;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// What guards the servers: both of an API share one. The default lets everybody ask everything.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    keys: Option<Arc<KnownKeys>>,
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

/// A caller that is let in.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) principal: Arc<Principal>,
    /// The quota that is left, where there is a limit.
    pub(super) quota: Option<Quota>,
}

impl Protection {
    /// Lets in who shows one of `keys`. They are read again every few seconds by [`refresh_loop`](Self::refresh_loop), without
    /// which nobody gets in.
    #[must_use]
    pub fn with_keys(self, keys: Arc<dyn ApiKeys>) -> Self {
        Self { keys: Some(Arc::new(KnownKeys::new(keys))), ..self }
    }

    /// Lets in callers with a token of `issuer`. [`refresh_loop`](Self::refresh_loop) reads the issuer's keys again; without it
    /// no caller gets in.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn with_tokens(self, issuer: TokenIssuer) -> Self {
        Self { tokens: Some(Arc::new(Tokens::new(issuer))), ..self }
    }

    /// Lets nobody ask more often than `limit`, unless their key says otherwise. Those whom nobody knows, or who fail to
    /// prove who they are, are counted by their address.
    ///
    /// The servers of this crate know the address. Serve the [`Server::router`](crate::Server::router) on another server with
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

    /// Lets in over TLS alone. This holds for [`Server::serve_http`](crate::Server::serve_http) and [`Server::serve_grpc`](crate::Server::serve_grpc);
    /// another server has to do its own. Its files are read again by [`refresh_loop`](Self::refresh_loop).
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

    /// Reads keys, the issuer's keys and certificates again until `shutdown`.
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
    pub(super) fn admit(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Refusal> {
        let admitted = self.decide(headers, extensions);
        if let Err(refusal) = &admitted {
            metrics::counter!("netagg_refused_requests_total", "reason" => refusal.reason()).increment(1);
        }
        admitted
    }

    fn decide(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Refusal> {
        let count = |caller: Option<CallerId>, limit: Option<RateLimit>| match (caller, limit) {
            (Some(caller), Some(limit)) => match self.rates.count(caller, limit) {
                Ok(quota) => Ok(Some(quota)),
                Err((quota, wait)) => Err(Refusal::TooMany(quota, wait)),
            },
            _ => Ok(None),
        };
        let peer = client_ip::peer(extensions);
        if self.rate_limit.is_some() && peer.is_none() {
            self.unknown_peer.get_or_init(|| {
                tracing::error!(
                    "requests are refused: the rate limit counts callers by address, and the server does not tell it; \
                     serve the router with into_make_service_with_connect_info::<SocketAddr>()"
                );
            });
            return Err(Refusal::UnknownPeer);
        }
        let address = || Some(CallerId::At(client_ip::client_address(peer?, headers, &self.trusted_proxies)));
        match self.authenticate(headers) {
            Ok((principal, caller)) => {
                let limit = principal.rate_limit.or(self.rate_limit);
                let caller = caller.or_else(address);
                Ok(Caller { quota: count(caller, limit)?, principal })
            }
            Err(refusal @ Refusal::Unavailable) => Err(refusal),
            Err(refusal) => Err(count(address(), self.rate_limit).err().unwrap_or(refusal)),
        }
    }

    /// Who asks, and as whom they are counted, if anybody knows them.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(Arc<Principal>, Option<CallerId>), Refusal> {
        if self.is_open() {
            return Ok((Arc::new(Principal::anybody()), None));
        }
        let credentials = Credentials::of(headers)?;
        let shown = credentials.text();
        if let Ok(key) = shown.parse::<ApiKeyToken>() {
            let keys = self.keys.as_ref().ok_or(known_keys::UNKNOWN)?;
            let principal = keys.holder_of(&key)?;
            return Ok((principal, Some(CallerId::Known(key.id().as_str().into()))));
        }
        #[cfg(feature = "jwt")]
        if let Some(tokens) = &self.tokens {
            let holder = tokens.holder_of(shown)?;
            return Ok((holder.principal, Some(CallerId::Known(holder.caller))));
        }
        Err(known_keys::UNKNOWN)
    }
}

//! How to reach Redis, and how much of it to use.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::types::config::{
    ClusterDiscoveryPolicy, Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, ServerConfig, TcpConfig,
    TlsConfig, TlsConnector, UnresponsiveConfig,
};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// What comes before `://`, and what it stands for.
const SCHEMES: &[&str] = &["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];

/// How many commands may wait to be written, for each connection.
const COMMANDS: usize = 1_024;

/// Where Redis is, and the bounds of its use.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// `redis://user:password@host:port/database`; `rediss` for TLS. With `-cluster` or `-sentinel` after the scheme,
    /// more nodes follow as `?node=host:port&node=…`, and for Sentinel, whose nodes these are then,
    /// `&sentinelServiceName=…`, and `&sentinelPassword=…` if they ask for one. Default: `redis://localhost:6379`.
    pub url: String,
    /// How long one call may take. Default: 100 ms.
    pub timeout: Duration,
    /// How long connecting may take, before it is tried again. Default: 1 s.
    pub connect_timeout: Duration,
    /// How many connections to keep; commands share them. Default: 2.
    pub connections: usize,
    /// The longest an answer is kept, whatever it is filled with. Default: 1 day.
    pub max_ttl: Duration,
    /// The largest answer that is kept, in bytes. Default: 1 MiB.
    pub max_answer_bytes: usize,
}

impl RedisConfig {
    /// A Redis at `host` and `port`, without password or TLS.
    pub fn at(host: &str, port: u16) -> Self {
        // an IPv6 address
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        Self { url: format!("redis://{host}:{port}"), ..Self::default() }
    }

    /// The Redis at `url`, with the default bounds.
    ///
    /// # Errors
    /// When it is no URL of a Redis; the error does not quote it.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        let config = Self { url: url.to_owned(), ..Self::default() };
        config.client()?;
        Ok(config)
    }

    /// For the client; its state does not matter before it connects.
    pub(crate) fn client(&self) -> Result<Config, ConfigError> {
        let scheme = self.url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(ConfigError { reason: "it does not start with one of the schemes".to_owned() });
        }
        // Not by the scheme: the client would take a provider of cryptography for granted, and panics where the program has
        // several and has chosen none.
        let (url, tls) = match self.url.strip_prefix("rediss") {
            Some(rest) => (format!("redis{rest}").into(), Some(tls()?)),
            None => (Cow::Borrowed(&*self.url), None),
        };
        let mut config = Config::from_url(&url)?;
        config.tls = tls;
        if let ServerConfig::Clustered { policy, .. } = &mut config.server {
            // the nodes of the URL may be those that are away
            *policy = ClusterDiscoveryPolicy::UseCache;
        }
        // Redis is optional: the first connection is no more important than the next one
        Ok(Config { fail_fast: false, ..config })
    }

    pub(crate) fn performance(&self) -> PerformanceConfig {
        PerformanceConfig { default_command_timeout: self.timeout, ..PerformanceConfig::default() }
    }

    pub(crate) fn connection(&self) -> ConnectionConfig {
        ConnectionConfig {
            connection_timeout: self.connect_timeout,
            internal_command_timeout: self.connect_timeout,
            max_command_attempts: 1,
            max_command_buffer_len: COMMANDS,
            reconnect_on_auth_error: true,
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            // a server that hangs gives up its connection
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(Duration::from_secs(2)),
                interval: Duration::from_millis(500),
            },
            ..ConnectionConfig::default()
        }
    }

    /// For ever, after 50 ms at first and every quarter of a second in the end: readers and the one who invalidates are
    /// to be back at about the same time.
    pub(crate) fn reconnect() -> ReconnectPolicy {
        ReconnectPolicy::new_exponential(0, 50, 250, 2)
    }

    /// The URL without user, password and parameters.
    fn place(&self) -> String {
        let place = self.url.split('?').next().unwrap_or_default();
        match (place.split_once("://"), place.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
            _ => place.to_owned(),
        }
    }
}

impl Default for RedisConfig {
    /// A Redis on this machine, at its usual port; a call may take 100 ms.
    fn default() -> Self {
        Self {
            url: "redis://localhost:6379".to_owned(),
            timeout: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(1),
            connections: 2,
            max_ttl: Duration::from_secs(24 * 60 * 60),
            max_answer_bytes: 1 << 20,
        }
    }
}

impl fmt::Debug for RedisConfig {
    /// Shows no login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &self.place())
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("connections", &self.connections)
            .field("max_ttl", &self.max_ttl)
            .field("max_answer_bytes", &self.max_answer_bytes)
            .finish()
    }
}

/// TLS 1.2 and 1.3 with servers whose certificate comes from an authority that this machine trusts, or from one in the
/// file that `SSL_CERT_FILE` names.
fn tls() -> Result<TlsConfig, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
        return Err(ConfigError { reason: format!("TLS needs certificate authorities, but {error}") });
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError { reason: error.to_string() })?;
    Ok(TlsConnector::from(config.with_root_certificates(roots).with_no_client_auth()).into())
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the address of a Redis: {reason}; accepted is redis://[user:password@]host[:port][/database], and rediss for \
     TLS, redis-cluster or redis-sentinel for redis"
)]
pub struct ConfigError {
    reason: String,
}

impl From<fred::error::Error> for ConfigError {
    fn from(error: fred::error::Error) -> Self {
        Self { reason: error.details().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> RedisConfig {
        RedisConfig { url: url.to_owned(), ..RedisConfig::default() }
    }

    #[test]
    fn addresses_of_every_kind_are_taken() {
        for url in [
            "redis://localhost",
            "redis://user:pass@localhost:6380/3",
            "rediss://:pass@redis.example:6380",
            "redis-cluster://localhost:7000?node=localhost:7001",
            "rediss-cluster://user:pass@localhost:7000",
            "redis-sentinel://localhost:26379?node=localhost:26380&sentinelServiceName=main",
        ] {
            let config = at(url).client().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert!(!config.fail_fast);
            assert_eq!(config.uses_tls(), url.starts_with("rediss"), "{url}");
        }
        assert_eq!(RedisConfig::at("::1", 1).url, "redis://[::1]:1");
        assert!(RedisConfig::at("::1", 1).client().is_ok());
        assert!(at("redis-cluster://localhost:7000").client().is_ok_and(|config| config.server.is_clustered()));
    }

    #[test]
    fn other_addresses_are_refused_without_a_word_of_their_passwords() {
        for url in
            ["", "localhost:6379", "http://user:hunter2@localhost", "redis://user:hunter2@localhost:port", "redis://"]
        {
            let error = at(url).client().map(drop).expect_err(url);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let config = at("rediss-sentinel://user:hunter2@host:1/0?sentinelPassword=hunter2");
        let shown = format!("{config:?}");
        assert!(shown.contains("rediss-sentinel://host:1/0") && !shown.contains("hunter2"), "{shown}");
    }
}

//! How to reach Redis, and the limits of its use.

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

/// The accepted schemes of a URL.
const SCHEMES: &[&str] = &["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];

/// How many commands may wait to be written, for each connection.
const COMMANDS: usize = 1_024;

/// The address of Redis, and the limits of its use.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// `redis://user:password@host:port/database`, or `rediss` for TLS. Append `-cluster` to the scheme for a cluster, or
    /// `-sentinel` for Sentinel. More nodes follow as `?node=host:port&node=…`. For Sentinel, all these nodes are nodes of
    /// Sentinel. Then add `&sentinelServiceName=…`, and `&sentinelPassword=…` if the nodes require a password. Default:
    /// `redis://localhost:6379`.
    pub url: String,
    /// How long one call may take. Default: 100 ms.
    pub timeout: Duration,
    /// How long one attempt to connect may take. Default: 1 s.
    pub connect_timeout: Duration,
    /// How many connections to keep; commands share them. Default: 2.
    pub connections: usize,
    /// The maximum time that a response is kept, even if the caller asks for a longer time. Default: 1 day.
    pub max_ttl: Duration,
    /// The maximum size of a response that is kept, in bytes. Default: 1 MiB.
    pub max_answer_bytes: usize,
}

impl RedisConfig {
    /// A Redis at `host` and `port`, without password or TLS.
    pub fn at(host: &str, port: u16) -> Self {
        // In a URL, an IPv6 address stands in brackets.
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        Self { url: format!("redis://{host}:{port}"), ..Self::default() }
    }

    /// The Redis at `url`, with the default limits.
    ///
    /// # Errors
    /// When `url` is not valid for Redis. The error does not quote it.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        let config = Self { url: url.to_owned(), ..Self::default() };
        config.client()?;
        Ok(config)
    }

    /// The configuration of the client.
    pub(crate) fn client(&self) -> Result<Config, ConfigError> {
        let scheme = self.url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(ConfigError { reason: "it does not start with an accepted scheme".to_owned() });
        }
        // Do not let the client set up TLS from the scheme: it would take the cryptography provider of the process, and
        // panic if the program has several providers and has chosen none.
        let (url, tls) = match self.url.strip_prefix("rediss") {
            Some(rest) => (format!("redis{rest}").into(), Some(tls()?)),
            None => (Cow::Borrowed(&*self.url), None),
        };
        let mut config = Config::from_url(&url)?;
        config.tls = tls;
        if let ServerConfig::Clustered { policy, .. } = &mut config.server {
            // The nodes of the URL may be unavailable, so use the nodes that the cluster has reported.
            *policy = ClusterDiscoveryPolicy::UseCache;
        }
        // Redis is optional, so a failed first connection is retried like any later connection.
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
            // The client closes its connection to a server that hangs.
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(Duration::from_secs(2)),
                interval: Duration::from_millis(500),
            },
            ..ConnectionConfig::default()
        }
    }

    /// Reconnects for ever, at first after 50 ms and later every 250 ms. So readers and the service that invalidates
    /// reconnect at about the same time.
    pub(crate) fn reconnect() -> ReconnectPolicy {
        ReconnectPolicy::new_exponential(0, 50, 250, 2)
    }

    /// The URL without user, password and parameters.
    fn url_without_secrets(&self) -> String {
        let url = self.url.split('?').next().unwrap_or_default();
        match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, server))) => format!("{scheme}://{server}"),
            _ => url.to_owned(),
        }
    }
}

impl Default for RedisConfig {
    /// A Redis on this machine, at its usual port. A call may take 100 ms.
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
    /// Does not show user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &self.url_without_secrets())
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("connections", &self.connections)
            .field("max_ttl", &self.max_ttl)
            .field("max_answer_bytes", &self.max_answer_bytes)
            .finish()
    }
}

/// TLS 1.2 and 1.3. The certificate of the server must come from an authority that this machine trusts, or from an
/// authority in the file that `SSL_CERT_FILE` names.
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
    "not the URL of a Redis server: {reason}; the form is redis://[user:password@]host[:port][/database], with rediss for \
     TLS, or with redis-cluster or redis-sentinel"
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
    fn urls_of_every_kind_are_accepted() {
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
    fn invalid_urls_are_refused_without_showing_their_passwords() {
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

//! The cache: its server, and how long it keeps responses.

use std::time::Duration;

use netagg_core::usage::{CursorSecret, UsageConfig};
use netagg_redis::RedisConfig;

use crate::process::{EnvError, Variables};

const DAY: Duration = Duration::from_secs(86_400);

/// Reads the address of the cache: `REDIS_*`.
pub fn redis(variables: &mut Variables) -> RedisConfig {
    variables.group("Cache (Redis)");
    let is_set = variables.has("REDIS_URL");
    let (host, port) = variables.unless(is_set, |variables| {
        let host = variables.text("REDIS_HOST", "localhost", "host name or IP address of the Redis server");
        (host, variables.port("REDIS_PORT", 6379, "TCP port of the Redis server"))
    });
    let url = variables.optional_text(
        "REDIS_URL",
        "",
        "address of Redis, instead of REDIS_HOST and REDIS_PORT: redis://…, redis-cluster://…?node=…, \
         redis-sentinel://…?node=…&sentinelServiceName=…; with TLS: rediss://…, rediss-cluster://…, rediss-sentinel://…",
    );
    match url.as_deref().map(RedisConfig::from_url) {
        None => RedisConfig::at(&host, port),
        Some(Ok(config)) => config,
        Some(Err(_)) => {
            variables.problem(EnvError::secret(
                "REDIS_URL",
                "redis://user:password@host:port/database, redis-cluster://…, \
                 redis-sentinel://…?sentinelServiceName=…, or the same with rediss for TLS",
            ));
            RedisConfig::default()
        }
    }
}

/// How long the cache keeps responses, and the cursor secret if it is configured.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The secret of `API_CURSOR_SECRET`. Without it, the API uses the secret that the database keeps.
    pub cursor_secret: Option<CursorSecret>,
    detail_ttl: Duration,
    day_ttl: Duration,
    month_ttl: Duration,
}

impl Answers {
    /// Reads `API_CURSOR_SECRET` and `CACHE_*`.
    pub fn read(variables: &mut Variables) -> Self {
        variables.group("API");
        let default = UsageConfig::default();
        let ttl = Duration::from_secs(1)..=365 * DAY;
        let secret = variables.optional_text(
            "API_CURSOR_SECRET",
            "",
            "secret that signs the cursors of pages, at least 16 characters; default: a random secret in the database",
        );
        if secret.as_ref().is_some_and(|secret| secret.chars().count() < 16) {
            variables.problem(EnvError::secret("API_CURSOR_SECRET", "16 characters or more"));
        }
        Self {
            cursor_secret: secret.map(CursorSecret::new),
            detail_ttl: variables.duration(
                "CACHE_DETAIL_TTL",
                default.detail_ttl,
                ttl.clone(),
                "how long Redis keeps a page of a timeline, and totals that are computed from events",
            ),
            day_ttl: variables.duration(
                "CACHE_AGG_DAY_TTL",
                default.day_ttl,
                ttl.clone(),
                "how long Redis keeps daily totals",
            ),
            month_ttl: variables.duration(
                "CACHE_AGG_MONTH_TTL",
                default.month_ttl,
                ttl,
                "how long Redis keeps monthly totals",
            ),
        }
    }

    /// The configuration of the usage service.
    pub fn usage_config(&self, cursor_secret: CursorSecret) -> UsageConfig {
        let mut config = UsageConfig::new(cursor_secret);
        config.detail_ttl = self.detail_ttl;
        config.day_ttl = self.day_ttl;
        config.month_ttl = self.month_ttl;
        config
    }
}

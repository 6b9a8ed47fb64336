//! The cache, and how long it keeps answers.

use std::time::Duration;

use netagg_core::usage::{CursorSecret, UsageConfig};
use netagg_redis::RedisConfig;

use crate::process::{EnvError, Variables};

const DAY: Duration = Duration::from_secs(86_400);

/// The cache.
pub fn redis(variables: &mut Variables) -> RedisConfig {
    let is_set = variables.has("REDIS_URL");
    let (host, port) = variables.unless(is_set, |variables| {
        (variables.text("REDIS_HOST", "localhost", "Redis's host"), variables.port("REDIS_PORT", 6379, "its port"))
    });
    let url = variables.optional_text(
        "REDIS_URL",
        "",
        "redis://…, redis-cluster://…?node=…, redis-sentinel://…?node=…&sentinelServiceName=…, rediss… for TLS; overrides \
         both",
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

/// How long answers are kept, and the cursor secret if it is configured.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The secret of `API_CURSOR_SECRET`; without it, the database's.
    pub cursor_secret: Option<CursorSecret>,
    detail_ttl: Duration,
    day_ttl: Duration,
    month_ttl: Duration,
}

impl Answers {
    /// Reads `API_CURSOR_SECRET` and `CACHE_*`.
    pub fn read(variables: &mut Variables) -> Self {
        let default = UsageConfig::default();
        let ttl = Duration::from_secs(1)..=365 * DAY;
        let secret = variables.optional_text(
            "API_CURSOR_SECRET",
            "",
            "authenticates cursors, 16 characters or more; default: made once, kept in the database",
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
                "how long detail pages are kept",
            ),
            day_ttl: variables.duration(
                "CACHE_AGG_DAY_TTL",
                default.day_ttl,
                ttl.clone(),
                "how long daily totals are kept",
            ),
            month_ttl: variables.duration(
                "CACHE_AGG_MONTH_TTL",
                default.month_ttl,
                ttl,
                "how long monthly totals are kept",
            ),
        }
    }

    /// What the usage service needs.
    pub fn usage_config(&self, cursor_secret: CursorSecret) -> UsageConfig {
        let mut config = UsageConfig::new(cursor_secret);
        config.detail_ttl = self.detail_ttl;
        config.day_ttl = self.day_ttl;
        config.month_ttl = self.month_ttl;
        config
    }
}

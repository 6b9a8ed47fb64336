//! The cache.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::{Client, Pool, WithOptions};
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::Options;
use fred::types::{ConnectHandle, Expiration, SetOptions, Value};
use futures::future::try_join_all;
use netagg_core::ports::{Cache, CacheKey, CacheTicket, Lookup};
use netagg_core::{BoxError, Error, Month};
use uuid::Uuid;

use crate::circuit::Circuit;
use crate::{ConfigError, RedisConfig, key};

/// What the ports' errors call this dependency.
const REDIS: &str = "redis";

/// How long a version is kept that nobody changes, in seconds. It may well go before its answers do: they become stale.
const VERSION_SECONDS: i64 = 7 * 24 * 60 * 60;

/// Answers in Redis.
///
/// Each call ends within [`RedisConfig::timeout`]. While Redis does not answer, lookups and fills fail at once, except
/// one now and then that tries; an invalidation always tries. Everything goes on by itself when Redis is back.
pub struct RedisCache {
    pool: Pool,
    connections: Vec<ConnectHandle>,
    circuit: Circuit,
    config: RedisConfig,
}

impl RedisCache {
    /// A cache in the Redis of `config`, which need not be there yet. To be called within a Tokio runtime, which
    /// drives the connections.
    ///
    /// # Errors
    /// When the URL is not one of a Redis.
    pub fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        let (performance, connection) = (Some(config.performance()), Some(config.connection()));
        let size = config.connections.max(1);
        let pool = Pool::new(config.client()?, performance, connection, Some(RedisConfig::reconnect()), size)?;
        let connections = pool.connect_pool();
        Ok(Self { pool, connections, circuit: Circuit::default(), config })
    }

    /// Asks Redis for a sign of life, for readiness.
    ///
    /// # Errors
    /// While there is none.
    pub async fn ping(&self) -> Result<(), Error> {
        self.bounded(async |client| client.ping::<Value>(None).await.map(drop)).await
    }

    /// Makes a call unless it would most likely be in vain.
    async fn sparing<T>(
        &self,
        call: impl AsyncFnOnce(WithOptions<Client>) -> Result<T, fred::error::Error>,
    ) -> Result<T, Error> {
        if self.circuit.admits() {
            self.bounded(call).await
        } else {
            Err(Error::unavailable(REDIS, "it did not answer just now"))
        }
    }

    /// Makes everything that was answered under the versions in `keys` unreachable.
    async fn outdate(&self, keys: Vec<String>) -> Result<(), Error> {
        self.bounded(async |client| match renew(&client, keys.clone(), None).await {
            // A server that is full takes nothing new; a version that is missing is as good as a new one.
            Err(error) if error.details().starts_with("OOM") => client.del::<(), _>(keys).await,
            renewed => renewed,
        })
        .await
    }

    async fn bounded<T>(
        &self,
        call: impl AsyncFnOnce(WithOptions<Client>) -> Result<T, fred::error::Error>,
    ) -> Result<T, Error> {
        let options = Options { fail_fast: true, ..Options::default() };
        let called =
            tokio::time::timeout(self.config.timeout, call(self.pool.next_connected().with_options(&options))).await;
        let result: Result<T, BoxError> = match called {
            Ok(result) => result.map_err(BoxError::from),
            Err(elapsed) => Err(elapsed.into()),
        };
        self.circuit.note(&result);
        result.map_err(|error| Error::unavailable(REDIS, error))
    }
}

#[async_trait]
impl Cache for RedisCache {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        self.sparing(async |client| {
            let versions = if key.months.is_empty() { Vec::new() } else { versions(&client, &key.months).await? };
            let answer = key::answer(&key.name, &versions);
            Ok(match client.get::<Option<Bytes>, _>(&answer).await? {
                Some(found) => Lookup::Hit(found),
                None => Lookup::Miss(CacheTicket::new(answer)),
            })
        })
        .await
    }

    async fn fill(&self, ticket: CacheTicket, answer: Bytes, ttl: Duration) -> Result<(), Error> {
        let millis = i64::try_from(ttl.min(self.config.max_ttl).as_millis()).unwrap_or(i64::MAX);
        if millis == 0 || answer.len() > self.config.max_answer_bytes {
            return Ok(());
        }
        self.sparing(async |client| client.set(ticket.key(), answer, Some(Expiration::PX(millis)), None, false).await)
            .await
    }

    async fn invalidate(&self, months: &[Month]) -> Result<(), Error> {
        self.outdate(months.iter().map(|month| key::month(*month)).collect()).await
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.outdate(vec![key::ALL_MONTHS.to_owned()]).await
    }
}

/// The versions of `months`, and of all months together. Those that are missing are made: an evicted one must not
/// leave a gap that looks the same before and after an invalidation.
async fn versions(client: &WithOptions<Client>, months: &[Month]) -> Result<Vec<Bytes>, fred::error::Error> {
    let keys: Vec<_> =
        std::iter::once(key::ALL_MONTHS.to_owned()).chain(months.iter().map(|month| key::month(*month))).collect();
    loop {
        let found: Vec<Option<Bytes>> = client.mget(keys.clone()).await?;
        let missing = keys.iter().zip(&found).filter(|(_, version)| version.is_none()).map(|(key, _)| key.clone());
        let missing: Vec<_> = missing.collect();
        if missing.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        // of several readers the first one decides, so they are read again
        renew(client, missing, Some(SetOptions::NX)).await?;
    }
}

/// Gives `keys` new versions.
async fn renew(
    client: &WithOptions<Client>,
    keys: impl IntoIterator<Item = String>,
    condition: Option<SetOptions>,
) -> Result<(), fred::error::Error> {
    let expires = || Some(Expiration::EX(VERSION_SECONDS));
    let renewed = keys.into_iter().map(|key| {
        let version = Uuid::new_v4().simple().to_string();
        client.set::<Value, _, _>(key, version, expires(), condition.clone(), false)
    });
    // sent together, in one round trip
    try_join_all(renewed).await.map(drop)
}

impl Drop for RedisCache {
    fn drop(&mut self) {
        self.connections.iter().for_each(ConnectHandle::abort);
    }
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache")
            .field("config", &self.config)
            .field("circuit", &self.circuit)
            .finish_non_exhaustive()
    }
}

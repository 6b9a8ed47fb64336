//! The cache of responses in Redis.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::{Client, Pool, WithOptions};
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, EventInterface, KeysInterface, LuaInterface};
use fred::types::config::{Options, Server};
use fred::types::{ConnectHandle, Expiration, Value};
use futures::future::try_join_all;
use netagg_core::ports::{Cache, CacheKey, CacheTicket, Lookup};
use netagg_core::{Error, Month};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::circuit::Circuit;
use crate::{ConfigError, RedisConfig, key};

/// The name of this dependency in errors.
const REDIS: &str = "redis";

/// How long a version is kept if no invalidation changes it, in seconds. If a version expires before its responses, they
/// become stale.
const VERSION_SECONDS: i64 = 7 * 24 * 60 * 60;

/// Returns the versions in KEYS, and the id of the server's history. If a version is missing, the script sets it to
/// ARGV\[1\] and keeps it for ARGV\[2\] seconds. An evicted version must not leave a gap that looks the same before and
/// after an invalidation.
///
/// A server begins a new history, with a new id, when it starts or becomes a master. It may have lost invalidations of the
/// old history. The id is part of the keys of responses, so no response of the old history can be reached. One script reads
/// versions and id, so that both come from the same server even if a command is redirected or reconnected.
const VERSIONS: &str = r"
local versions = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  if not versions[i] then
    versions[i] = ARGV[1]
    redis.call('SET', key, versions[i], 'EX', ARGV[2])
  end
end
versions[#KEYS + 1] = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
return versions";

/// The pause between two checks whether there are connections.
const RECHECK: Duration = Duration::from_millis(20);

/// The pause before a failed invalidation after a reconnect is tried again.
const INVALIDATION_RETRY: Duration = Duration::from_millis(100);

/// A cache of responses in Redis.
///
/// Each call ends within [`RedisConfig::timeout`]. While Redis does not answer, lookups and fills fail at once, except for
/// an occasional attempt. An invalidation always tries. When Redis answers again, the cache works again by itself.
pub struct RedisCache {
    pool: Pool,
    /// The tasks that drive the connections.
    connecting: Vec<ConnectHandle>,
    /// The tasks that record connection errors, and that invalidate after reconnects. They run as long as the cache.
    watchers: Vec<ConnectHandle>,
    circuit: Circuit,
    /// The circuit of invalidations. While the server accepts none, a lookup would find outdated responses.
    writes: Circuit,
    last_connect_error: Arc<LastConnectError>,
    /// Whether this cache has ever been asked to invalidate responses.
    invalidates: Arc<AtomicBool>,
    config: RedisConfig,
}

impl RedisCache {
    /// A cache in the Redis of `config`, which need not be available yet. Call this within a Tokio runtime, which drives
    /// the connections.
    ///
    /// # Errors
    /// When the URL is not valid for Redis.
    pub fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        let (performance, connection) = (Some(config.performance()), Some(config.connection()));
        let size = config.connections.max(1);
        let pool = Pool::new(config.client()?, performance, connection, Some(RedisConfig::reconnect()), size)?;
        let (invalidates, last_connect_error) = (Arc::<AtomicBool>::default(), Arc::<LastConnectError>::default());
        // Subscribe before the first connection, so that no failure is missed.
        let record = |client: &Client| tokio::spawn(record_errors(client.error_rx(), last_connect_error.clone()));
        let mut watchers: Vec<_> = pool.clients().iter().map(record).collect();
        let connecting = pool.connect_pool();
        let invalidate =
            |client: &Client| tokio::spawn(invalidate_after_reconnects(client.clone(), invalidates.clone()));
        watchers.extend(pool.clients().iter().map(invalidate));
        Ok(Self {
            pool,
            connecting,
            watchers,
            circuit: Circuit::of_answers(),
            writes: Circuit::of_writes(),
            last_connect_error,
            invalidates,
            config,
        })
    }

    /// Waits until all connections are made, possibly for ever.
    pub async fn connected(&self) {
        while self.pool.wait_for_connect().await.is_err() {
            tokio::time::sleep(RECHECK).await;
        }
    }

    /// Checks whether responses can be looked up and invalidated, for readiness.
    ///
    /// # Errors
    /// While Redis does not answer, or rejects one of the commands that the cache needs. Also after a background
    /// task of the cache has ended: then responses may be stale after an outage of Redis.
    pub async fn ping(&self) -> Result<(), Error> {
        if self.watchers.iter().any(ConnectHandle::is_finished) {
            const REASON: &str =
                "a task that follows the connections has ended, so answers may be stale; restart the service";
            return Err(Error::internal(REDIS, REASON));
        }
        self.bounded(async |client| {
            versions(&client, &[]).await?;
            client.get::<Value, _>(key::ALL_MONTHS).await.map(drop)
        })
        .await?;
        self.check_writes().await
    }

    /// Deletes a key that does not exist. A replica, or a server that cannot save its data, serves reads and rejects this
    /// command. A server that is out of memory accepts it, and also accepts an invalidation.
    async fn check_writes(&self) -> Result<(), Error> {
        let written = self.bounded(async |client| client.del(key::WRITABLE).await).await;
        self.writes.note(&written);
        written
    }

    /// Makes a call if the circuit admits it. Otherwise the call would most likely fail.
    async fn call_if_admitted<T>(
        &self,
        call: impl AsyncFnOnce(WithOptions<Client>) -> Result<T, fred::error::Error>,
    ) -> Result<T, Error> {
        if self.circuit.admits() {
            self.bounded(call).await
        } else {
            Err(Error::unavailable(REDIS, "it did not answer recent calls"))
        }
    }

    async fn invalidate_keys(&self, keys: Vec<String>) -> Result<(), Error> {
        self.invalidates.store(true, Ordering::Relaxed);
        let renewed = self.bounded(async |client| renew_versions(&client, keys).await).await;
        self.writes.note(&renewed);
        renewed
    }

    async fn bounded<T>(
        &self,
        call: impl AsyncFnOnce(WithOptions<Client>) -> Result<T, fred::error::Error>,
    ) -> Result<T, Error> {
        let client = self.pool.next_connected();
        let called = tokio::time::timeout(self.config.timeout, call(fail_fast(client))).await;
        let result = match called {
            Ok(result) => result.map_err(|error| {
                // Without a connection, the error of the call does not have the reason. The last connect error has it.
                let connect_error = if client.is_connected() { None } else { self.last_connect_error.last() };
                connect_error.unwrap_or_else(|| reason(&error))
            }),
            Err(_) => {
                let connect_error = if client.is_connected() { None } else { self.last_connect_error.last() };
                Err(connect_error.unwrap_or_else(|| format!("no answer within {:?}", self.config.timeout)))
            }
        };
        self.circuit.note(&result);
        result.map_err(|error| Error::unavailable(REDIS, error))
    }
}

#[async_trait]
impl Cache for RedisCache {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        if self.writes.is_open() {
            if !self.writes.admits() {
                return Err(Error::unavailable(REDIS, "it did not accept a recent write"));
            }
            self.check_writes().await?;
        }
        self.call_if_admitted(async |client| {
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
        self.call_if_admitted(async |client| {
            client.set(ticket.key(), answer, Some(Expiration::PX(millis)), None, false).await
        })
        .await
    }

    async fn invalidate(&self, months: &[Month]) -> Result<(), Error> {
        self.invalidate_keys(months.iter().map(|month| key::month(*month)).collect()).await
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.invalidate_keys(vec![key::ALL_MONTHS.to_owned()]).await
    }
}

/// Why the last attempt to connect failed.
#[derive(Debug, Default)]
struct LastConnectError(Mutex<Option<String>>);

impl LastConnectError {
    fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// Records the connection errors of a client in `last_connect_error`.
async fn record_errors(
    mut errors: broadcast::Receiver<(fred::error::Error, Option<Server>)>,
    last_connect_error: Arc<LastConnectError>,
) -> Result<(), fred::error::Error> {
    loop {
        match errors.recv().await {
            Ok((error, _)) => last_connect_error.note(reason(&error)),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// The text of `error`. For an error reply of the server, this is the reply itself.
fn reason(error: &fred::error::Error) -> String {
    match error.kind() {
        ErrorKind::Auth | ErrorKind::Cluster | ErrorKind::InvalidArgument | ErrorKind::Unknown => {
            error.details().to_owned()
        }
        // The client formats errors of the operating system with `Debug`.
        ErrorKind::IO => {
            let quoted = ["message: \"", "error: \""].iter().find_map(|name| error.details().split_once(name));
            match quoted.and_then(|(_, text)| text.split_once('"')) {
                Some((message, _)) => message.to_owned(),
                None => error.details().to_owned(),
            }
        }
        _ => error.to_string(),
    }
}

/// A client whose commands do not wait for a connection.
fn fail_fast(client: &Client) -> WithOptions<Client> {
    client.with_options(&Options { fail_fast: true, ..Options::default() })
}

/// Reads the parts of the key of a response from `months` besides its name: the version of all months together, the version
/// of each month, and the id of the server's history.
async fn versions(client: &WithOptions<Client>, months: &[Month]) -> Result<Vec<Bytes>, fred::error::Error> {
    let keys: Vec<_> =
        std::iter::once(key::ALL_MONTHS.to_owned()).chain(months.iter().map(|month| key::month(*month))).collect();
    client.eval(VERSIONS, keys, vec![new_version(), VERSION_SECONDS.to_string()]).await
}

/// A text that is never used twice for a key.
fn new_version() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Renews the versions in `keys`. All responses under the old versions become unreachable.
async fn renew_versions(client: &WithOptions<Client>, keys: Vec<String>) -> Result<(), fred::error::Error> {
    let renewed = keys.iter().map(|key| {
        let expires = Some(Expiration::EX(VERSION_SECONDS));
        client.set::<(), _, _>(key, new_version(), expires, None, false)
    });
    // All commands are sent together, in one round trip.
    match try_join_all(renewed).await {
        // A server that is out of memory rejects a new version, so delete the old version. The next lookup makes a new one.
        Err(error) if error.details().starts_with("OOM") => client.del(keys).await,
        renewed => renewed.map(drop),
    }
}

/// Invalidates all responses after each reconnect of `client`, once `invalidates` is set. A server that has taken over from
/// another server may lack the last invalidations, and readers may already be connected to it.
async fn invalidate_after_reconnects(client: Client, invalidates: Arc<AtomicBool>) -> Result<(), fred::error::Error> {
    client.wait_for_connect().await?;
    netagg_core::crash::in_task("reminder");
    let mut reconnects = client.reconnect_rx();
    let client = fail_fast(&client);
    // The number of reconnects does not matter, so a lagged receiver is no problem.
    while !matches!(reconnects.recv().await, Err(RecvError::Closed)) {
        while invalidates.load(Ordering::Relaxed)
            && renew_versions(&client, vec![key::ALL_MONTHS.to_owned()]).await.is_err()
        {
            tokio::time::sleep(INVALIDATION_RETRY).await;
        }
    }
    Ok(())
}

impl Drop for RedisCache {
    fn drop(&mut self) {
        self.connecting.iter().chain(&self.watchers).for_each(ConnectHandle::abort);
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

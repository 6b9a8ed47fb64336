//! The cache.

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

/// What the ports' errors call this dependency.
const REDIS: &str = "redis";

/// How long a version is kept that nobody changes, in seconds. It may well go before its answers do: they become stale.
const VERSION_SECONDS: i64 = 7 * 24 * 60 * 60;

/// Gives the versions in KEYS, and the id of the history that they are part of. A version that is missing is made of
/// ARGV\[1\], to be kept for ARGV\[2\] seconds: an evicted one must not leave a gap that looks the same before and after
/// an invalidation.
///
/// A server begins a new history when it starts or is promoted, and so has another id from then on. It may have lost
/// invalidations of the old one; with its id in their keys, no answers of before can be reached in any case. One script,
/// so that versions and id are of one server, whatever redirects or reconnects a command.
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

/// After what pause it is looked again whether there are connections.
const RECHECK: Duration = Duration::from_millis(20);

/// After what pause a server is told again that could not be told.
const REMINDER: Duration = Duration::from_millis(100);

/// Answers in Redis.
///
/// Each call ends within [`RedisConfig::timeout`]. While Redis does not answer, lookups and fills fail at once, except
/// one now and then that tries; an invalidation always tries. Everything goes on by itself when Redis is back.
pub struct RedisCache {
    pool: Pool,
    /// They drive the connections.
    connecting: Vec<ConnectHandle>,
    /// They notice refusals and reconnections; none ends before the cache does.
    noticing: Vec<ConnectHandle>,
    circuit: Circuit,
    /// Whether the server takes invalidations: without them, a lookup would find outdated answers.
    writes: Circuit,
    refusal: Arc<Refusal>,
    /// Whether it has ever invalidated anything.
    invalidates: Arc<AtomicBool>,
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
        let (invalidates, refusal) = (Arc::<AtomicBool>::default(), Arc::<Refusal>::default());
        // Before anything connects: no failure is missed.
        let mut noticing: Vec<_> =
            pool.clients().iter().map(|client| tokio::spawn(listen(client.error_rx(), refusal.clone()))).collect();
        let connecting = pool.connect_pool();
        noticing.extend(pool.clients().iter().map(|client| tokio::spawn(remind(client.clone(), invalidates.clone()))));
        Ok(Self {
            pool,
            connecting,
            noticing,
            circuit: Circuit::of_answers(),
            writes: Circuit::of_writes(),
            refusal,
            invalidates,
            config,
        })
    }

    /// Returns once all connections are made. It fails no call and may wait for ever.
    pub async fn connected(&self) {
        while self.pool.wait_for_connect().await.is_err() {
            tokio::time::sleep(RECHECK).await;
        }
    }

    /// Asks Redis whether answers can be looked up, for readiness.
    ///
    /// # Errors
    /// While they cannot: also of a server that is alive and refuses the commands that this takes. From the death of a
    /// task of the cache on, too: without it, answers may be stale after Redis was away.
    pub async fn ping(&self) -> Result<(), Error> {
        if self.noticing.iter().any(ConnectHandle::is_finished) {
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

    /// Deletes a key that is not there. A replica, or a server that cannot save its data, answers reads and refuses this; a
    /// server that is full takes it, as it takes an invalidation.
    async fn check_writes(&self) -> Result<(), Error> {
        let written = self.bounded(async |client| client.del(key::WRITABLE).await).await;
        self.writes.note(&written);
        written
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

    async fn outdate(&self, keys: Vec<String>) -> Result<(), Error> {
        self.invalidates.store(true, Ordering::Relaxed);
        let outdated = self.bounded(async |client| outdate(&client, keys).await).await;
        self.writes.note(&outdated);
        outdated
    }

    async fn bounded<T>(
        &self,
        call: impl AsyncFnOnce(WithOptions<Client>) -> Result<T, fred::error::Error>,
    ) -> Result<T, Error> {
        let client = self.pool.next_connected();
        let called = tokio::time::timeout(self.config.timeout, call(fail_fast(client))).await;
        let result = match called {
            Ok(result) => result.map_err(|error| {
                // Without a connection a call fails for want of one, which says nothing.
                let refusal = if client.is_connected() { None } else { self.refusal.last() };
                refusal.unwrap_or_else(|| reason(&error))
            }),
            Err(_) => {
                let refusal = if client.is_connected() { None } else { self.refusal.last() };
                Err(refusal.unwrap_or_else(|| format!("no answer within {:?}", self.config.timeout)))
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
                return Err(Error::unavailable(REDIS, "it took no write just now"));
            }
            self.check_writes().await?;
        }
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

/// Why the last attempt to connect failed.
#[derive(Debug, Default)]
struct Refusal(Mutex<Option<String>>);

impl Refusal {
    fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// Keeps what a client says of its connections in `refusal`.
async fn listen(
    mut errors: broadcast::Receiver<(fred::error::Error, Option<Server>)>,
    refusal: Arc<Refusal>,
) -> Result<(), fred::error::Error> {
    loop {
        match errors.recv().await {
            Ok((error, _)) => refusal.note(reason(&error)),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// What `error` says: of a server's answer the answer itself.
fn reason(error: &fred::error::Error) -> String {
    match error.kind() {
        ErrorKind::Auth | ErrorKind::Cluster | ErrorKind::InvalidArgument | ErrorKind::Unknown => {
            error.details().to_owned()
        }
        // The client has the system's errors in the form for debugging.
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

/// What the key of an answer from `months` holds besides its name: their versions, the one of all months together, and
/// which server's they are.
async fn versions(client: &WithOptions<Client>, months: &[Month]) -> Result<Vec<Bytes>, fred::error::Error> {
    let keys: Vec<_> =
        std::iter::once(key::ALL_MONTHS.to_owned()).chain(months.iter().map(|month| key::month(*month))).collect();
    client.eval(VERSIONS, keys, vec![new_version(), VERSION_SECONDS.to_string()]).await
}

/// A text that is never used twice for a key.
fn new_version() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Makes everything that was answered under the versions in `keys` unreachable.
async fn outdate(client: &WithOptions<Client>, keys: Vec<String>) -> Result<(), fred::error::Error> {
    let renewed = keys.iter().map(|key| {
        let expires = Some(Expiration::EX(VERSION_SECONDS));
        client.set::<(), _, _>(key, new_version(), expires, None, false)
    });
    // sent together, in one round trip
    match try_join_all(renewed).await {
        // A server that is full takes nothing new; a version that is missing is as good as a new one.
        Err(error) if error.details().starts_with("OOM") => client.del(keys).await,
        renewed => renewed.map(drop),
    }
}

/// Makes all answers stale whenever `client` is connected anew, once `invalidates` is set: a server that took over from
/// another may not have heard of what that one was told last, while readers were with it already.
async fn remind(client: Client, invalidates: Arc<AtomicBool>) -> Result<(), fred::error::Error> {
    client.wait_for_connect().await?;
    netagg_core::crash::in_task("reminder");
    let mut reconnects = client.reconnect_rx();
    let client = fail_fast(&client);
    // how many there were does not matter
    while !matches!(reconnects.recv().await, Err(RecvError::Closed)) {
        while invalidates.load(Ordering::Relaxed) && outdate(&client, vec![key::ALL_MONTHS.to_owned()]).await.is_err() {
            tokio::time::sleep(REMINDER).await;
        }
    }
    Ok(())
}

impl Drop for RedisCache {
    fn drop(&mut self) {
        self.connecting.iter().chain(&self.noticing).for_each(ConnectHandle::abort);
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

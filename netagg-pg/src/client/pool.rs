//! The handle of a database: a bounded pool of connections.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use netagg_core::EventLimits;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::Mutex;

use super::config::{MAX_INSERT_ROWS, PgAddress, PgConfig};
use super::error::PgError;
use super::passed_check::PassedCheck;
use super::session::Session;

/// How long a call waits for a connection before it tests whether the server accepts connections. A running server answers
/// within milliseconds.
const PATIENCE: Duration = Duration::from_millis(200);

/// For how long a failed attempt explains why there is no connection.
const RECENT: Duration = Duration::from_secs(1);

const TOO_MANY_CONNECTIONS: &str = "53300";

/// The default time limit of a call.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A database, and a bounded pool of connections to it. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: PgPool,
    call_timeout: Duration,
    max_insert_rows: usize,
    /// How many connections of the pool this handle uses now.
    sessions: Arc<AtomicU32>,
    last_attempt: Arc<Mutex<Option<Attempt>>>,
    distribution_check: Arc<PassedCheck>,
    agreed_limits: Arc<OnceLock<EventLimits>>,
}

impl Postgres {
    /// A handle with a pool of its own. It connects when a call needs a connection, so the server may start later.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: PgConfig) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .connect_lazy_with(config.connect_options());
        Self { call_timeout: config.call_timeout, max_insert_rows: config.max_insert_rows, ..Self::from_pool(pool) }
    }

    /// A handle over your own pool, which the rest of your application may use, too.
    ///
    /// Make its connections with [`PgConfig::connect_options`], or set the same parameters of the session yourself:
    ///
    /// | parameter | without it |
    /// |---|---|
    /// | `statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout` | a statement may take, and hold locks, until the call times out |
    /// | `plan_cache_mode=force_custom_plan` | queries become slow as months are added: a generic plan locks every partition |
    ///
    /// These settings of [`PgConfig`] do not apply:
    ///
    /// - `max_connections` and `acquire_timeout` come from the pool.
    /// - `call_timeout` is 60 s, or the value of [`with_call_timeout`](Self::with_call_timeout).
    /// - `max_insert_rows` is 1,000.
    /// - All other settings come from the pool's connections.
    ///
    /// Three things differ from the pool's own rules:
    ///
    /// - A connection whose call failed, timed out or was dropped is closed. It does not return to the pool.
    /// - Migrations, audits, repairs and retention open connections beside the pool, with the pool's options but without
    ///   statement and lock timeouts. The pool's `after_connect` does not run on them.
    /// - [`close`](Self::close) closes the pool for all of its users.
    ///
    /// A service needs a connection for each batch in flight and 4 more; the API needs 18. So ingestor, aggregator and API
    /// together need 34 with their defaults. With fewer connections, calls wait for each other up to the pool's
    /// `acquire_timeout`.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use netagg_pg::{PgConfig, Postgres, sqlx::postgres::PgPoolOptions};
    ///
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = PgConfig::new("postgres://app_user:app_password@localhost/network_events".parse()?);
    /// let pool = PgPoolOptions::new().max_connections(34).connect_lazy_with(config.connect_options());
    /// let postgres = Postgres::from_pool(pool).with_call_timeout(Duration::from_secs(30));
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_pool(pool: PgPool) -> Self {
        Self {
            pool,
            call_timeout: CALL_TIMEOUT,
            max_insert_rows: MAX_INSERT_ROWS,
            sessions: Arc::default(),
            last_attempt: Arc::default(),
            distribution_check: Arc::default(),
            agreed_limits: Arc::default(),
        }
    }

    /// Limits each call to `call_timeout` in total: see [`PgConfig::call_timeout`].
    #[must_use]
    pub fn with_call_timeout(self, call_timeout: Duration) -> Self {
        Self { call_timeout, ..self }
    }

    /// The pool, for statements of the application.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How many connections the pool has, and how many of them are in use.
    pub fn pool_use(&self) -> PoolUse {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        PoolUse { idle, used: self.pool.size().saturating_sub(idle), max: self.max_connections() }
    }

    /// Closes the pool. A connection in use is closed when its call ends.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// How many rows a batch writes with `INSERT`: see [`PgConfig::max_insert_rows`].
    pub(crate) fn max_insert_rows(&self) -> usize {
        self.max_insert_rows
    }

    /// The event limits on which the services of this handle have agreed with the database.
    pub(crate) fn agreed_limits(&self) -> Option<EventLimits> {
        self.agreed_limits.get().copied()
    }

    /// Records `limits` as agreed, and returns the limits on which this handle has agreed first.
    pub(crate) fn agree_once(&self, limits: EventLimits) -> EventLimits {
        *self.agreed_limits.get_or_init(|| limits)
    }

    /// The same handle, for work that validates no events. Such work does not depend on the limits.
    pub(crate) fn without_agreed_limits(self) -> Self {
        Self { agreed_limits: Arc::default(), ..self }
    }

    pub(super) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// The database that the pool connects to now.
    pub(super) fn address(&self) -> PgAddress {
        PgAddress::from(&*self.pool.connect_options())
    }

    fn max_connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    fn acquire_timeout(&self) -> Duration {
        self.pool.options().get_acquire_timeout()
    }

    /// The last check that no table is distributed over several servers.
    pub(crate) fn distribution_check(&self) -> &PassedCheck {
        &self.distribution_check
    }

    /// A connection for one call.
    pub(crate) async fn session(&self) -> Result<Session, PgError> {
        let acquired = tokio::select! {
            biased;
            acquired = self.pool.acquire() => acquired,
            refusal = self.refusal() => return Err(refusal),
        };
        match acquired {
            Ok(connection) => Ok(Session::new(connection, &self.sessions)),
            Err(sqlx::Error::PoolTimedOut) => Err(self.no_connection()),
            Err(error @ sqlx::Error::PoolClosed) => Err(error.into()),
            Err(error) => Err(PgError::not_connected(&self.address(), Arc::new(error))),
        }
    }

    /// Tries to connect outside of the pool, and returns the reason if the server refuses new connections. Never returns
    /// while the server accepts connections, or while all connections of the pool are in use.
    ///
    /// The pool itself retries until its timeout, and then gives no reason.
    async fn refusal(&self) -> PgError {
        loop {
            tokio::time::sleep(PATIENCE).await;
            if self.sessions.load(Ordering::Relaxed) >= self.max_connections() {
                continue;
            }
            // Only one attempt runs at a time. All waiting calls share its outcome.
            let mut last = self.last_attempt.lock().await;
            if last.as_ref().is_none_or(|attempt| attempt.at.elapsed() >= PATIENCE) {
                let error = match self.connect((*self.pool.connect_options()).clone()).await {
                    Ok(connection) => connection.close().await.err(),
                    Err(error) => Some(error),
                };
                *last = Some(Attempt { at: Instant::now(), error: error.map(Arc::new) });
            }
            if let Some(Attempt { error: Some(error), .. }) = &*last
                && !is_too_many_connections(error)
            {
                return PgError::not_connected(&self.address(), error.clone());
            }
        }
    }

    /// The error for a call that got no connection in time, with the reason if it is known.
    fn no_connection(&self) -> PgError {
        let last = self.last_attempt.try_lock().ok();
        let recent = last.as_deref().and_then(Option::as_ref).filter(|last| last.at.elapsed() < RECENT);
        match recent.and_then(|last| last.error.clone()) {
            Some(error) => PgError::not_connected(&self.address(), error),
            None => PgError::NoConnection {
                address: self.address().to_string(),
                limit: self.acquire_timeout(),
                max: self.max_connections(),
            },
        }
    }

    /// A connection outside of the pool, without a statement or lock timeout.
    pub(crate) async fn unlimited_connection(&self) -> Result<PgConnection, PgError> {
        let connected = self.connect(self.unlimited_options()).await;
        connected.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => self.no_connection(),
            error => PgError::not_connected(&self.address(), Arc::new(error)),
        })
    }

    /// A pool of one connection like [`Self::unlimited_connection`].
    pub(crate) fn unlimited_pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.acquire_timeout())
            .connect_lazy_with(self.unlimited_options())
    }

    fn unlimited_options(&self) -> PgConnectOptions {
        (*self.pool.connect_options()).clone().options([("statement_timeout", "0"), ("lock_timeout", "0")])
    }

    /// One attempt to connect.
    async fn connect(&self, options: PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        let connected = tokio::time::timeout(self.acquire_timeout(), options.connect()).await;
        connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// An attempt to connect, whose outcome all calls that wait for a connection share.
#[derive(Debug)]
struct Attempt {
    at: Instant,
    error: Option<Arc<sqlx::Error>>,
}

/// Whether the server refused a connection because it has too many. This may change in a moment.
fn is_too_many_connections(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some(TOO_MANY_CONNECTIONS))
}

/// The connections of a pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Open connections that are not in use.
    pub idle: u32,
    /// Connections in use, or being opened.
    pub used: u32,
    /// The maximum number of connections.
    pub max: u32,
}

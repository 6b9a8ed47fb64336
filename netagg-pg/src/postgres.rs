//! The handle of a database, and connections for one call.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use netagg_core::Error;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::Mutex;

use crate::audit::Audit;
use crate::config::PgConfig;
use crate::distribution::Undistributed;
use crate::error::{self, PgError};
use crate::migrations::Migrations;
use crate::partitions::Partitions;
use crate::repair::Repairs;
use crate::retention::Retention;
use crate::settings::Settings;

/// How long a call waits for a connection before it is found out whether the server takes any. One that runs answers
/// within milliseconds.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long an attempt tells why there is no connection.
const RECENT: Duration = Duration::from_secs(1);

const TOO_MANY_CONNECTIONS: &str = "53300";

/// A database, and a bounded pool of connections to it. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: PgPool,
    config: Arc<PgConfig>,
    attempts: Arc<Attempts>,
    undistributed: Arc<Undistributed>,
}

impl Postgres {
    /// A handle; the server need not be there yet, connections are made when they are needed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: PgConfig) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .connect_lazy_with(config.connect_options());
        Self { pool, config: Arc::new(config), attempts: Arc::default(), undistributed: Arc::default() }
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// Retryable, with the reason, while it gives none.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call(async {
            let mut session = self.session().await?;
            sqlx::raw_sql("SELECT 1").execute(&mut *session).await?;
            session.release();
            Ok(())
        })
        .await
    }

    /// Checks that the schema is the one this crate was built with.
    ///
    /// # Errors
    /// [`Error::NotSetUp`] when it is missing, older or newer; other retryable ones while nobody answers.
    pub async fn check_schema(&self) -> Result<(), Error> {
        self.migrations().check().await
    }

    /// The schema's versions.
    pub fn migrations(&self) -> Migrations {
        Migrations::new(self.clone())
    }

    /// The partitions of `events_raw`.
    pub fn partitions(&self) -> Partitions {
        Partitions::new(self.clone())
    }

    /// Whether the totals are the sums over the events.
    pub fn audit(&self) -> Audit {
        Audit::new(self.clone())
    }

    /// Recomputing totals from events.
    pub fn repairs(&self) -> Repairs {
        Repairs::new(self.clone())
    }

    /// How long events are kept.
    pub fn retention(&self) -> Retention {
        Retention::new(self.clone())
    }

    /// What all programs on this database agree on.
    pub fn settings(&self) -> Settings {
        Settings::new(self.clone())
    }

    /// How many connections there are, and how many of them work.
    pub fn pool_use(&self) -> PoolUse {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        PoolUse { idle, used: self.pool.size().saturating_sub(idle), max: self.config.max_connections }
    }

    /// Closes the connections, those in use once they are done with.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs one call of a port within its time, and says what its failure means to netagg.
    pub(crate) async fn call<T>(&self, work: impl Future<Output = Result<T, PgError>>) -> Result<T, Error> {
        let limit = self.config.call_timeout;
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(error::to_core),
            Err(_) => Err(error::to_core(PgError::CallTimedOut { address: self.config.address.to_string(), limit })),
        }
    }

    pub(crate) fn undistributed(&self) -> &Undistributed {
        &self.undistributed
    }

    /// A connection for one call that writes; none if tables are distributed.
    pub(crate) async fn writing_session(&self) -> Result<Session, PgError> {
        let mut session = self.session().await?;
        self.refuse_distribution(&mut session).await?;
        Ok(session)
    }

    /// A connection for one call.
    pub(crate) async fn session(&self) -> Result<Session, PgError> {
        let acquired = tokio::select! {
            biased;
            acquired = self.pool.acquire() => acquired,
            refusal = self.refusal() => return Err(refusal),
        };
        match acquired {
            Ok(connection) => Ok(Session::new(connection, &self.attempts)),
            Err(sqlx::Error::PoolTimedOut) => Err(self.no_connection()),
            Err(error @ sqlx::Error::PoolClosed) => Err(error.into()),
            Err(error) => Err(PgError::not_connected(&self.config.address, Arc::new(error))),
        }
    }

    /// Why the server takes no new connection, found out by an attempt of its own; never if it takes them, or if all of the
    /// pool's are at work. The pool tries again and again for as long as it may, and then gives no reason.
    async fn refusal(&self) -> PgError {
        loop {
            tokio::time::sleep(PATIENCE).await;
            if self.attempts.sessions.load(Ordering::Relaxed) >= self.config.max_connections {
                continue;
            }
            // One attempt at a time, however many calls wait for what comes of it.
            let mut last = self.attempts.last.lock().await;
            if last.as_ref().is_none_or(|attempt| attempt.at.elapsed() >= PATIENCE) {
                let error = match self.connect(self.config.connect_options()).await {
                    Ok(connection) => connection.close().await.err(),
                    Err(error) => Some(error),
                };
                *last = Some(Attempt { at: Instant::now(), error: error.map(Arc::new) });
            }
            if let Some(Attempt { error: Some(error), .. }) = &*last
                && !is_crowded(error)
            {
                return PgError::not_connected(&self.config.address, error.clone());
            }
        }
    }

    /// Why the pool has given no connection in time, as far as it is known.
    fn no_connection(&self) -> PgError {
        let last = self.attempts.last.try_lock().ok();
        let recent = last.as_deref().and_then(Option::as_ref).filter(|last| last.at.elapsed() < RECENT);
        match recent.and_then(|last| last.error.clone()) {
            Some(error) => PgError::not_connected(&self.config.address, error),
            None => PgError::NoConnection {
                address: self.config.address.to_string(),
                limit: self.config.acquire_timeout,
                max: self.config.max_connections,
            },
        }
    }

    /// A connection of its own, without limits of time on what is done with it.
    pub(crate) async fn unlimited_connection(&self) -> Result<PgConnection, PgError> {
        let connected = self.connect(self.unlimited_options()).await;
        connected.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => self.no_connection(),
            error => PgError::not_connected(&self.config.address, Arc::new(error)),
        })
    }

    /// A pool of one connection like [`Self::unlimited_connection`].
    pub(crate) fn unlimited_pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.config.acquire_timeout)
            .connect_lazy_with(self.unlimited_options())
    }

    fn unlimited_options(&self) -> PgConnectOptions {
        self.config.connect_options().options([("statement_timeout", "0"), ("lock_timeout", "0")])
    }

    /// One attempt to connect.
    async fn connect(&self, options: PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        let connected = tokio::time::timeout(self.config.acquire_timeout, options.connect()).await;
        connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// What attempts to connect have shown, for all calls that wait for a connection.
#[derive(Debug, Default)]
struct Attempts {
    /// How many of the pool's connections are at work.
    sessions: AtomicU32,
    last: Mutex<Option<Attempt>>,
}

#[derive(Debug)]
struct Attempt {
    at: Instant,
    error: Option<Arc<sqlx::Error>>,
}

/// Whether the server has as many connections as it takes, which may change in a moment.
fn is_crowded(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some(TOO_MANY_CONNECTIONS))
}

/// The connections of a pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct PoolUse {
    /// Open, with nothing to do.
    pub idle: u32,
    /// Open and at work, or being opened.
    pub used: u32,
    /// The most there may be.
    pub max: u32,
}

/// A connection that goes back to the pool only when its call is done with it ([`Session::release`]).
///
/// Dropped before that, by an error or because the call was cancelled or took too long, it is closed: the server then
/// rolls back, nothing half done is left for the next call, and a dead connection does not occupy the pool.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Option<PoolConnection<sqlx::Postgres>>,
    attempts: Arc<Attempts>,
}

impl Session {
    fn new(connection: PoolConnection<sqlx::Postgres>, attempts: &Arc<Attempts>) -> Self {
        attempts.sessions.fetch_add(1, Ordering::Relaxed);
        Self { connection: Some(connection), attempts: Arc::clone(attempts) }
    }

    pub(crate) fn release(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
        self.attempts.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_deref().unwrap_or_else(|| unreachable!("only `release` and `drop` take the connection"))
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_deref_mut().unwrap_or_else(|| unreachable!("only `release` and `drop` take the connection"))
    }
}

//! The handle of a database, and connections for one call.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use netagg_core::Error;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool};

use crate::audit::Audit;
use crate::config::PgConfig;
use crate::error::{self, PgError};
use crate::migrations::Migrations;
use crate::partitions::Partitions;
use crate::repair::Repairs;
use crate::retention::Retention;
use crate::settings::Settings;

/// A database, and a bounded pool of connections to it. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: PgPool,
    config: Arc<PgConfig>,
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
        Self { pool, config: Arc::new(config) }
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

    /// A connection for one call.
    pub(crate) async fn session(&self) -> Result<Session, PgError> {
        match self.pool.acquire().await {
            Ok(connection) => Ok(Session(Some(connection))),
            Err(sqlx::Error::PoolTimedOut) => Err(PgError::NoConnection {
                address: self.config.address.to_string(),
                limit: self.config.acquire_timeout,
                max: self.config.max_connections,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// A pool of one connection without limits on what it does, apart from this one.
    pub(crate) fn unlimited_connection(&self) -> PgPool {
        PgPoolOptions::new().max_connections(1).acquire_timeout(self.config.acquire_timeout).connect_lazy_with(
            self.config.connect_options().options([("statement_timeout", "0"), ("lock_timeout", "0")]),
        )
    }
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
pub(crate) struct Session(Option<PoolConnection<sqlx::Postgres>>);

impl Session {
    pub(crate) fn release(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_deref().unwrap_or_else(|| unreachable!("only `release` and `drop` take the connection"))
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_deref_mut().unwrap_or_else(|| unreachable!("only `release` and `drop` take the connection"))
    }
}

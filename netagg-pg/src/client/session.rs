//! A connection for one call.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::PgConnection;
use sqlx::pool::PoolConnection;

/// A connection that returns to the pool only when its call has succeeded ([`Session::release`]).
///
/// An error, a cancelled call or a timeout drops the session earlier, which closes the connection. Then the server rolls
/// back, so the next call finds no unfinished work. A dead connection does not stay in the pool.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Option<PoolConnection<sqlx::Postgres>>,
    sessions: Arc<AtomicU32>,
}

impl Session {
    /// A session on `connection`, counted in `sessions` until it ends.
    pub(super) fn new(connection: PoolConnection<sqlx::Postgres>, sessions: &Arc<AtomicU32>) -> Self {
        sessions.fetch_add(1, Ordering::Relaxed);
        Self { connection: Some(connection), sessions: Arc::clone(sessions) }
    }

    /// Returns the connection to the pool.
    pub(crate) fn release(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
        self.sessions.fetch_sub(1, Ordering::Relaxed);
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

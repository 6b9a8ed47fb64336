//! Tables that are distributed over several servers, which netagg does not support yet.
//!
//! There a unique violation has another code, a transaction has no snapshot of all servers, and physical positions mean
//! nothing. Writers would end at the first duplicate, retention would leave rows behind, an audit would see differences
//! that are none, and a repair would change totals that are right. So all of them refuse to begin.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use netagg_core::Error;
use sqlx::PgConnection;

use crate::error::PgError;
use crate::postgres::Postgres;

/// For how long the answer counts: tables may be distributed while services run.
const VALID: Duration = Duration::from_secs(60);

/// When it was last seen that no table is distributed.
#[derive(Debug, Default)]
pub(crate) struct Undistributed(Mutex<Option<Instant>>);

impl Undistributed {
    fn is_known(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|seen| seen.elapsed() < VALID)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Postgres {
    /// Checks that no table of netagg's is distributed over several servers, as Citus does it. An extension that is
    /// installed and distributes none of them does no harm.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the tables that are distributed. Retryable ones while the database cannot be reached.
    pub async fn check_distribution(&self) -> Result<(), Error> {
        self.call(async {
            let mut session = self.session().await?;
            refuse(&mut session).await?;
            session.release();
            Ok(())
        })
        .await
    }

    /// Fails if a table is distributed; asks the server once a minute.
    pub(crate) async fn refuse_distribution(&self, connection: &mut PgConnection) -> Result<(), PgError> {
        if !self.undistributed().is_known() {
            refuse(connection).await?;
            self.undistributed().note();
        }
        Ok(())
    }
}

async fn refuse(connection: &mut PgConnection) -> Result<(), PgError> {
    let has_extension: bool =
        sqlx::query_scalar("SELECT to_regclass('pg_dist_partition') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !has_extension {
        return Ok(());
    }
    let tables: Option<String> =
        sqlx::query_scalar(include_str!("../queries/distributed_tables.sql")).fetch_one(connection).await?;
    tables.map_or(Ok(()), |tables| Err(PgError::Distributed { tables }))
}

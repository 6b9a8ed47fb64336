//! Tables that are distributed over several servers, which netagg does not support yet.
//!
//! In such a database, a unique violation has another code, no transaction has one snapshot of all servers, and physical
//! row positions mean nothing. Writers would stop at the first duplicate, and retention would leave rows behind. An audit
//! would report differences that do not exist, and a repair would change correct totals. So writers, retention, audits and
//! repairs fail before they begin.

use std::time::Duration;

use netagg_core::Error;
use sqlx::PgConnection;

use crate::client::{PgError, Postgres, Session};

/// How long a passed check is valid. Tables may be distributed while services run, so it is repeated.
const VALID: Duration = Duration::from_secs(60);

impl Postgres {
    /// Checks that no table of netagg is distributed over several servers, for example by Citus. The extension may be
    /// installed if it distributes none of them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the distributed tables. Retryable errors while the database cannot be reached.
    pub async fn check_distribution(&self) -> Result<(), Error> {
        self.call(async {
            let mut session = self.session().await?;
            refuse(&mut session).await?;
            session.release();
            Ok(())
        })
        .await
    }

    /// A connection for a call that writes. Fails if a table is distributed.
    pub(crate) async fn writing_session(&self) -> Result<Session, PgError> {
        let mut session = self.session().await?;
        self.refuse_distribution(&mut session).await?;
        Ok(session)
    }

    /// Fails if a table is distributed. Asks the server at most once a minute.
    pub(crate) async fn refuse_distribution(&self, connection: &mut PgConnection) -> Result<(), PgError> {
        if !self.distribution_check().is_younger_than(VALID) {
            refuse(connection).await?;
            self.distribution_check().record();
        }
        Ok(())
    }
}

async fn refuse(connection: &mut PgConnection) -> Result<(), PgError> {
    // A table `pg_dist_partition` with other columns does not belong to the extension.
    const HAS_EXTENSION: &str = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('pg_dist_partition') \
                                 AND attname = 'logicalrelid')";
    let has_extension: bool = sqlx::query_scalar(HAS_EXTENSION).fetch_one(&mut *connection).await?;
    if !has_extension {
        return Ok(());
    }
    let tables: Option<String> =
        sqlx::query_scalar(include_str!("../../queries/schema/distributed_tables.sql")).fetch_one(connection).await?;
    tables.map_or(Ok(()), |tables| Err(PgError::Distributed { tables }))
}

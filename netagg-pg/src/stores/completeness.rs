//! Up to which instant each service has processed all records that its topic held then.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use netagg_core::ports::CompletenessStore;
use netagg_core::{Error, Position, Timestamp};

use crate::client::{PgError, Postgres, Traced};

impl Postgres {
    /// The recorded instant of `service`.
    pub(crate) async fn complete_through(&self, service: &str) -> Result<Option<Timestamp>, Error> {
        self.call(async {
            let mut session = self.session().await?;
            let through: Option<DateTime<Utc>> =
                sqlx::query_scalar(include_str!("../../queries/progress/completeness_read.sql"))
                    .bind(service)
                    .fetch_optional(&mut *session)
                    .traced("SELECT completeness")
                    .await?;
            session.release();
            through.map(Timestamp::try_from).transpose().map_err(|error| PgError::unreadable("an instant", error))
        })
        .await
    }
}

#[async_trait]
impl CompletenessStore for Postgres {
    async fn note_complete(
        &self,
        service: &str,
        topic: &str,
        through: Timestamp,
        committed: &[Position],
    ) -> Result<bool, Error> {
        self.call(async {
            let mut session = self.session().await?;
            let noted = sqlx::query(include_str!("../../queries/progress/completeness_note.sql"))
                .bind(service)
                .bind(topic)
                .bind(through.to_datetime())
                .bind(committed.iter().map(|position| position.partition.number).collect::<Vec<_>>())
                .bind(committed.iter().map(|position| position.next_offset).collect::<Vec<_>>())
                .execute(&mut *session)
                .traced("INSERT completeness")
                .await?;
            session.release();
            Ok(noted.rows_affected() > 0)
        })
        .await
    }
}

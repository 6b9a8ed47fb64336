//! Up to which instant a service has done everything that its topic held then.

use chrono::{DateTime, Utc};
use netagg_core::{Error, Position, Timestamp};

use crate::error::PgError;
use crate::postgres::Postgres;

impl Postgres {
    /// Notes that `service` has done everything that `topic` held at `through`, its group having committed `committed`
    /// by then. It is not noted, and false, if the service's own progress does not bear it out.
    ///
    /// # Errors
    /// Retryable while the database cannot be reached.
    pub async fn note_complete(
        &self,
        service: &str,
        topic: &str,
        through: Timestamp,
        committed: &[Position],
    ) -> Result<bool, Error> {
        self.call(async {
            let mut session = self.session().await?;
            let noted = sqlx::query(include_str!("../queries/completeness_note.sql"))
                .bind(service)
                .bind(topic)
                .bind(through.to_datetime())
                .bind(committed.iter().map(|position| position.partition.number).collect::<Vec<_>>())
                .bind(committed.iter().map(|position| position.next_offset).collect::<Vec<_>>())
                .execute(&mut *session)
                .await?;
            session.release();
            Ok(noted.rows_affected() > 0)
        })
        .await
    }

    /// What was noted of `service`.
    pub(crate) async fn complete_through(&self, service: &str) -> Result<Option<Timestamp>, Error> {
        self.call(async {
            let mut session = self.session().await?;
            let through: Option<DateTime<Utc>> =
                sqlx::query_scalar("SELECT complete_through FROM completeness WHERE service = $1")
                    .bind(service)
                    .fetch_optional(&mut *session)
                    .await?;
            session.release();
            through.map(Timestamp::try_from).transpose().map_err(|error| PgError::unreadable("an instant", error))
        })
        .await
    }
}

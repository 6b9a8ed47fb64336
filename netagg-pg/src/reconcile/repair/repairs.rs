//! The entry point of repairs.

use std::time::Duration;

use chrono::NaiveDate;
use netagg_core::{Day, Error};

use super::run::Repair;
use crate::client::{Postgres, error};
use crate::reconcile::connection::connect;
use crate::reconcile::days::{end_of, start_of};
use crate::stores::dirty_days;

/// Repairs totals.
#[derive(Clone, Debug)]
pub struct Repairs {
    postgres: Postgres,
}

impl Postgres {
    /// Returns the handle that recomputes totals from events.
    pub fn repairs(&self) -> Repairs {
        Repairs { postgres: self.clone() }
    }
}

impl Repairs {
    /// The days from `from` to `to`, both inclusive, that have events, totals or identities.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn days(&self, from: Day, to: Day) -> Result<Vec<Day>, Error> {
        let read = async {
            let mut connection = connect(&self.postgres).await?;
            let days: Vec<NaiveDate> = sqlx::query_scalar(include_str!("../../../queries/repair/days.sql"))
                .bind(from.to_date())
                .bind(to.to_date())
                .bind(start_of(from))
                .bind(end_of(to))
                .fetch_all(&mut connection)
                .await?;
            Ok(days.into_iter().map(Day::from).collect())
        };
        read.await.map_err(error::to_core)
    }

    /// Marks `days` dirty. If their repair is interrupted, the service that counts or the next repair finishes it.
    ///
    /// # Errors
    /// Retryable while the database cannot be reached.
    pub async fn mark(&self, days: &[Day]) -> Result<(), Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.writing_session().await?;
                dirty_days::mark(&mut session, days.iter().copied()).await?;
                session.release();
                Ok(())
            })
            .await
    }

    /// Begins to repair `days`: waits up to `patience` for other repairs of these days, locks the days, and reads the
    /// current and the wanted totals.
    ///
    /// # Errors
    /// Retryable while the database cannot be reached.
    pub async fn begin(&self, days: &[Day], patience: Duration) -> Result<Repair, Error> {
        Repair::begin(&self.postgres, days, patience).await.map_err(error::to_core)
    }

    /// Makes the totals of `days` final: equal to the stored events. The caller has closed the month fence, so neither
    /// service accepts events of these days any more, and events that are counted and not stored never will be stored.
    pub(crate) async fn freeze(&self, days: &[Day], patience: Duration) -> Result<(), Error> {
        self.begin(days, patience).await?.freeze().await
    }
}

//! The settings that all programs on one database agree on.

use std::time::Duration;

use netagg_core::usage::CursorSecret;
use netagg_core::{Error, EventLimits, HumanDuration, Month};
use sqlx::PgConnection;
use uuid::Uuid;

use super::mode;
use crate::client::{PgError, Postgres, error};

const CURSOR_SECRET: &str = "cursor_secret";
/// The setting with the maximum age of an event, in microseconds.
pub(super) const MAX_AGE: &str = "event_max_age_us";
/// The setting with the maximum time by which an event may be in the future, in microseconds.
pub(super) const MAX_FUTURE: &str = "event_max_future_us";

/// The settings of a database. The first program that needs a value records it, and all other programs use it.
#[derive(Clone, Debug)]
pub struct Settings {
    postgres: Postgres,
}

/// Why the event limits are not agreed on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventLimitsError {
    /// The database has other limits. Two services with different limits would accept different events.
    #[error(
        "the recorded limits of events are max_age {} and max_future {}, the configured limits are {} and {}",
        HumanDuration(.recorded.max_age), HumanDuration(.recorded.max_future),
        HumanDuration(.configured.max_age), HumanDuration(.configured.max_future)
    )]
    Differ {
        /// The limits in the database.
        recorded: EventLimits,
        /// The limits of this program.
        configured: EventLimits,
    },
    /// The limits of the database have changed since another service agreed on the old limits with the same [`Postgres`].
    #[error("the recorded limits of events have changed since this `Postgres` agreed on limits: make a new `Postgres`")]
    Changed,
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Postgres {
    /// The settings that all programs on this database agree on.
    pub fn settings(&self) -> Settings {
        Settings { postgres: self.clone() }
    }
}

impl Settings {
    /// The secret with which all APIs on this database authenticate cursors. The first API makes it.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn cursor_secret(&self) -> Result<CursorSecret, Error> {
        // 244 bits from the system's generator
        let fresh = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let [secret] = self.agree([(CURSOR_SECRET, fresh)]).await?;
        Ok(CursorSecret::new(secret))
    }

    /// Records the `configured` limits if none are recorded yet. Otherwise checks that the recorded limits are the same.
    ///
    /// From then on, the stores of the same [`Postgres`] check in each transaction that the database still has these limits. If it
    /// has other limits, a batch fails with [`Error::Unsupported`]: its events were validated by the old limits.
    ///
    /// # Errors
    /// [`EventLimitsError::Differ`] if the recorded limits differ; [`EventLimitsError::Changed`] if the same [`Postgres`] has agreed
    /// on other limits before.
    pub async fn event_limits(&self, configured: EventLimits) -> Result<EventLimits, EventLimitsError> {
        let micros = |duration: Duration| duration.as_micros().to_string();
        let [max_age, max_future] =
            self.agree([(MAX_AGE, micros(configured.max_age)), (MAX_FUTURE, micros(configured.max_future))]).await?;
        let recorded = parse_limits(&max_age, &max_future).map_err(error::to_core)?;
        if recorded != configured {
            return Err(EventLimitsError::Differ { recorded, configured });
        }
        if self.postgres.agree_once(recorded) == recorded { Ok(recorded) } else { Err(EventLimitsError::Changed) }
    }

    /// The recorded limits, if a program has recorded limits.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn recorded_event_limits(&self) -> Result<Option<EventLimits>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let recorded: Vec<String> =
                    sqlx::query_scalar("SELECT value FROM settings WHERE name = ANY($1) ORDER BY name")
                        .bind([MAX_AGE, MAX_FUTURE])
                        .fetch_all(&mut *session)
                        .await?;
                session.release();
                let [max_age, max_future] = &*recorded else { return Ok(None) };
                parse_limits(max_age, max_future).map(Some)
            })
            .await
    }

    /// Replaces the recorded limits by `limits`. Before the call, the caller lets both services process the whole topic,
    /// stops them, and calls [`ConsumerGroups::check_drained`](netagg_core::ConsumerGroups::check_drained). Otherwise the
    /// two services could validate a record by different limits. The call waits until batches in flight are written.
    /// Meanwhile new batches wait, too. Later batches of services with the old limits fail.
    ///
    /// # Errors
    /// Retryable while the database cannot be reached, or if a batch in flight takes longer than
    /// [`PgConfig::lock_timeout`](crate::PgConfig::lock_timeout).
    pub async fn set_event_limits(&self, limits: EventLimits) -> Result<(), Error> {
        let values = [limits.max_age, limits.max_future].map(|limit| limit.as_micros().to_string());
        self.postgres
            .call(async {
                let mut session = self.postgres.writing_session().await?;
                mode::begin_alone(&mut session).await?;
                sqlx::query(
                    "INSERT INTO settings (name, value) SELECT * FROM unnest($1::text[], $2::text[]) \
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                )
                .bind([MAX_AGE, MAX_FUTURE])
                .bind(&values[..])
                .execute(&mut *session)
                .await?;
                sqlx::raw_sql("COMMIT").execute(&mut *session).await?;
                session.release();
                Ok(())
            })
            .await
    }

    /// Returns the value of each setting, in the order of `proposals`, which are sorted by name. If a setting has no value,
    /// records the proposal.
    async fn agree<const N: usize>(&self, proposals: [(&'static str, String); N]) -> Result<[String; N], Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let values = agree(&mut session, &proposals).await?;
                session.release();
                values
                    .try_into()
                    .map_err(|values: Vec<_>| PgError::unreadable("settings", format!("{} of {N}", values.len())))
            })
            .await
    }
}

async fn agree(connection: &mut PgConnection, proposals: &[(&'static str, String)]) -> Result<Vec<String>, PgError> {
    let names: Vec<&str> = proposals.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = proposals.iter().map(|(_, value)| value.as_str()).collect();
    sqlx::query(
        "INSERT INTO settings (name, value) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING",
    )
    .bind(&names)
    .bind(&values)
    .execute(&mut *connection)
    .await?;
    // Only a later statement sees the values that another program has recorded meanwhile.
    let recorded = sqlx::query_scalar("SELECT value FROM settings WHERE name = ANY($1) ORDER BY name")
        .bind(&names)
        .fetch_all(connection)
        .await?;
    Ok(recorded)
}

/// Reads the month that the setting `name` has.
pub(crate) async fn read_month(connection: &mut PgConnection, name: &str) -> Result<Option<Month>, PgError> {
    let value: Option<String> =
        sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(connection).await?;
    value.as_deref().map(parse_month).transpose()
}

/// Records `month` as the setting `name`, unless the setting has a later month.
pub(crate) async fn record_month(connection: &mut PgConnection, name: &str, month: Month) -> Result<(), PgError> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE \
         SET value = greatest(settings.value, excluded.value), updated_at = now()",
    )
    .bind(name)
    .bind(month.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) fn parse_month(month: &str) -> Result<Month, PgError> {
    month.parse().map_err(|error: netagg_core::ParseTimeError| PgError::unreadable("a dropped month", error))
}

/// The limits with these values of the settings [`MAX_AGE`] and [`MAX_FUTURE`].
pub(super) fn parse_limits(max_age: &str, max_future: &str) -> Result<EventLimits, PgError> {
    let parse = |micros: &str| {
        micros.parse().map(Duration::from_micros).map_err(|error| PgError::unreadable("an event limit", error))
    };
    Ok(EventLimits { max_age: parse(max_age)?, max_future: parse(max_future)? })
}

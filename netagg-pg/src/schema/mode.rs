//! The mode of a database: separate services or one combined service. All services of the database must agree on it.

use std::fmt;

use netagg_core::{Error, ProcessingMode, RetryPolicy};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::client::{PgError, Postgres, locks};

/// The setting with the mode.
pub(crate) const MODE: &str = "mode";

/// The mode that a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum RecordedMode {
    /// No service has recorded a mode yet.
    Unset,
    /// Services of this mode may write.
    Set(ProcessingMode),
    /// A switch to this mode was begun and is not finished: no service may write.
    SwitchingTo(ProcessingMode),
}

impl RecordedMode {
    pub(crate) fn parse(value: Option<&str>) -> Result<Self, PgError> {
        let Some(value) = value else { return Ok(Self::Unset) };
        let (name, recorded): (_, fn(ProcessingMode) -> Self) = match value.strip_prefix("to_") {
            Some(name) => (name, Self::SwitchingTo),
            None => (value, Self::Set),
        };
        name.parse().map(recorded).map_err(|_| PgError::unreadable("a mode", value.to_owned()))
    }

    /// The mode whose tables the database has. During a switch, this is still the mode before it.
    pub fn tables(self) -> ProcessingMode {
        match self {
            Self::Set(ProcessingMode::Combined) | Self::SwitchingTo(ProcessingMode::Separate) => {
                ProcessingMode::Combined
            }
            Self::Unset | Self::Set(ProcessingMode::Separate) | Self::SwitchingTo(ProcessingMode::Combined) => {
                ProcessingMode::Separate
            }
        }
    }

    /// Fails unless services of `mode` may write.
    pub(crate) fn check(self, mode: ProcessingMode) -> Result<(), PgError> {
        if self.allows(mode) {
            Ok(())
        } else {
            Err(PgError::OtherSettings(format!("{self}, and this service works in the {mode} mode")))
        }
    }

    /// Whether services of `mode` may write. Separate services also write to a database without a mode.
    pub(crate) fn allows(self, mode: ProcessingMode) -> bool {
        self == Self::Set(mode) || self == Self::Unset && mode == ProcessingMode::Separate
    }
}

impl fmt::Display for RecordedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("the database has no mode yet"),
            Self::Set(mode) => write!(f, "the database is in the {mode} mode"),
            Self::SwitchingTo(mode) => write!(f, "the switch of the database to the {mode} mode is not finished"),
        }
    }
}

/// Why a service must not write to a database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModeError {
    /// The database has another mode. Some events would not be counted, or would be counted twice.
    #[error("{recorded}, and this service works in the {configured} mode")]
    Differs {
        /// The mode of the database.
        recorded: RecordedMode,
        /// The mode of this service.
        configured: ProcessingMode,
    },
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Postgres {
    /// Waits until the server answers and has its schema. Then records `mode` if the database is new, or checks that the
    /// database has this mode. Every service that stores or counts events calls this first.
    ///
    /// Returns `None` if `shutdown` comes first.
    ///
    /// # Errors
    /// [`ModeError::Differs`] if the database has another mode; [`ModeError::Store`] with an error that a retry cannot resolve.
    pub async fn agree_on_mode(
        &self,
        mode: ProcessingMode,
        shutdown: &CancellationToken,
    ) -> Result<Option<()>, ModeError> {
        let recorded = RetryPolicy::default().retry(shutdown, async || self.record_mode_of_new(mode).await).await?;
        match recorded {
            None => Ok(None),
            Some(recorded) if recorded.allows(mode) => Ok(Some(())),
            Some(recorded) => Err(ModeError::Differs { recorded, configured: mode }),
        }
    }

    /// The mode that the database has.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn recorded_mode(&self) -> Result<RecordedMode, Error> {
        self.call(async {
            let mut session = self.session().await?;
            let recorded = read(&mut session).await?;
            session.release();
            Ok(recorded)
        })
        .await
    }

    /// Records `mode` in a database that no service has written to. Returns the mode of the database afterwards.
    async fn record_mode_of_new(&self, mode: ProcessingMode) -> Result<RecordedMode, Error> {
        self.check_schema().await?;
        let recorded = self.recorded_mode().await?;
        if recorded != RecordedMode::Unset {
            return Ok(recorded);
        }
        self.call(async {
            let mut session = self.writing_session().await?;
            begin_alone(&mut session).await?;
            let recorded = match read(&mut session).await? {
                RecordedMode::Unset if is_new(&mut session).await? => {
                    if mode == ProcessingMode::Combined {
                        sqlx::raw_sql(include_str!("../../queries/mode/combine.sql")).execute(&mut *session).await?;
                    }
                    record(&mut session, RecordedMode::Set(mode)).await?
                }
                // Embedded services have written without a call of `agree_on_mode`.
                RecordedMode::Unset => record(&mut session, RecordedMode::Set(ProcessingMode::Separate)).await?,
                recorded => recorded,
            };
            sqlx::raw_sql("COMMIT").execute(&mut *session).await?;
            session.release();
            Ok(recorded)
        })
        .await
    }
}

/// Begins a transaction that excludes all writers: it waits until running writers have ended, and later writers wait until it
/// has ended.
pub(crate) async fn begin_alone(connection: &mut PgConnection) -> Result<(), PgError> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(locks::WRITERS).execute(connection).await?;
    Ok(())
}

/// The recorded mode.
pub(crate) async fn read(connection: &mut PgConnection) -> Result<RecordedMode, PgError> {
    let value: Option<String> =
        sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(MODE).fetch_optional(connection).await?;
    RecordedMode::parse(value.as_deref())
}

/// Records `mode`, and returns it.
pub(crate) async fn record(connection: &mut PgConnection, mode: RecordedMode) -> Result<RecordedMode, PgError> {
    let value = match mode {
        RecordedMode::Unset => return Ok(mode),
        RecordedMode::Set(mode) => mode.to_string(),
        RecordedMode::SwitchingTo(mode) => format!("to_{mode}"),
    };
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value, updated_at = EXCLUDED.updated_at",
    )
    .bind(MODE)
    .bind(value)
    .execute(connection)
    .await?;
    Ok(mode)
}

/// Whether no service has ever written.
async fn is_new(connection: &mut PgConnection) -> Result<bool, PgError> {
    let is_new = sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT FROM consumer_progress) AND NOT EXISTS (SELECT FROM event_identity) \
         AND NOT EXISTS (SELECT FROM agg_identity)",
    );
    Ok(is_new.fetch_one(connection).await?)
}

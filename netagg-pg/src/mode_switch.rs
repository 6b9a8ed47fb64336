//! The switch of a database from the separate to the combined mode, and back.
//!
//! 1. The switch is recorded. From then on, no service writes.
//! 2. The consumer group of the aggregator is deleted, or gets the committed offsets of the ingestor.
//! 3. One transaction changes the tables and records the new mode.
//!
//! After an interruption, the switch begins again at the first step: each step may be repeated.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use netagg_core::crash::{self, CrashPoint};
use netagg_core::ports::GroupAdmin;
use netagg_core::{ConsumerGroups, Day, Error, NotDrained, ProcessingMode};
use sqlx::PgConnection;

use crate::client::{PgError, Postgres, error};
use crate::schema::{RecordedMode, mode};

/// How long the switch waits for transactions of writers that were killed and have not ended yet.
const OLD_WRITERS: Duration = Duration::from_secs(60);

/// Switches the mode of a database.
#[derive(Clone, Debug)]
pub struct ModeSwitch {
    postgres: Postgres,
    groups: ConsumerGroups,
    admin: Arc<dyn GroupAdmin>,
}

/// The result of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwitchReport {
    /// The mode before the switch.
    pub before: RecordedMode,
    /// How many identities the ledger of the totals has: 0 in the combined mode, which has no such ledger.
    pub counted_identities: u64,
}

/// Why the mode is not switched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchError {
    /// Services are running or have records to process.
    #[error(transparent)]
    NotDrained(#[from] NotDrained),
    /// The totals of these days must be recomputed before the switch. The running service that counts does this, or a rebuild.
    #[error("the totals of {days} days from {first} to {last} must be recomputed first")]
    DirtyDays {
        /// How many days are dirty.
        days: u64,
        /// The first dirty day.
        first: Day,
        /// The last dirty day.
        last: Day,
    },
    /// A switch to the other mode is not finished.
    #[error("the switch to the {to} mode is not finished")]
    Unfinished {
        /// The other mode.
        to: ProcessingMode,
    },
    /// The database or the broker has failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Postgres {
    /// Returns the handle that switches the mode of this database. `groups` are the consumer groups of its services.
    /// `admin` changes the group of the aggregator.
    pub fn mode_switch(&self, groups: ConsumerGroups, admin: Arc<dyn GroupAdmin>) -> ModeSwitch {
        ModeSwitch { postgres: self.clone(), groups, admin }
    }
}

impl ModeSwitch {
    /// Switches the database to `to`. Returns `None` if it already has this mode. An [audit](Postgres::audit) afterwards shows
    /// that totals are exact.
    ///
    /// Before the call, the services must be stopped and must have processed the whole topic. During the switch, no service
    /// can write, and readers see unchanged totals.
    ///
    /// # Errors
    /// If a service is running or has records to process, or if days are dirty: then nothing has changed. After any other
    /// error the switch may have begun, and the same call finishes it.
    pub async fn run(&self, to: ProcessingMode) -> Result<Option<SwitchReport>, SwitchError> {
        self.postgres.check_schema().await?;
        let before = self.postgres.recorded_mode().await?;
        match before {
            RecordedMode::Set(mode) if mode == to => return Ok(None),
            RecordedMode::SwitchingTo(other) if other != to => return Err(SwitchError::Unfinished { to: other }),
            _ => {}
        }
        let reading = match before {
            // The aggregator's group may be deleted already.
            RecordedMode::SwitchingTo(_) => ProcessingMode::Combined,
            before => before.tables(),
        };
        self.groups.clone().in_mode(reading).check_drained().await?;
        self.begin(before, to).await?;
        crash::pass(CrashPoint::SwitchRecorded);
        self.move_group(to).await?;
        crash::pass(CrashPoint::GroupMoved);
        let counted_identities = self.finish(to).await.map_err(error::to_core)?;
        Ok(Some(SwitchReport { before, counted_identities }))
    }

    /// Records that the switch has begun, unless another process has changed the mode `before`. From then on, no service
    /// writes.
    async fn begin(&self, before: RecordedMode, to: ProcessingMode) -> Result<(), SwitchError> {
        let begin = async {
            let mut connection = self.connection().await?;
            mode::begin_alone(&mut connection).await?;
            if mode::read(&mut connection).await? != before {
                return Err(PgError::Busy("another process has changed the mode just now".to_owned()));
            }
            let dirty: Vec<NaiveDate> =
                sqlx::query_scalar(include_str!("../queries/repair/due.sql")).fetch_all(&mut connection).await?;
            if dirty.is_empty() {
                mode::record(&mut connection, RecordedMode::SwitchingTo(to)).await?;
            }
            sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
            Ok::<_, PgError>(dirty)
        };
        let dirty = begin.await.map_err(error::to_core)?;
        let [first, last] = [dirty.iter().min(), dirty.iter().max()].map(|day| day.copied().map(Day::from));
        match first.zip(last) {
            None => Ok(()),
            Some((first, last)) => Err(SwitchError::DirtyDays { days: dirty.len() as u64, first, last }),
        }
    }

    /// Deletes the group of the aggregator, which would lag for ever without an aggregator. Or commits the offsets of the
    /// ingestor for it, so that a new aggregator continues where the ingestor has stopped.
    async fn move_group(&self, to: ProcessingMode) -> Result<(), Error> {
        let ConsumerGroups { offsets, topic, ingestor, .. } = &self.groups;
        let Some(aggregator) = &self.groups.aggregator else { return Ok(()) };
        match to {
            ProcessingMode::Combined => self.admin.delete(aggregator).await,
            ProcessingMode::Separate => {
                let lags = offsets.lag_in_offsets(ingestor, topic).await?.unwrap_or_default();
                let committed: Vec<_> = lags.iter().filter_map(|lag| Some((lag.number, lag.committed?))).collect();
                if committed.is_empty() { Ok(()) } else { self.admin.commit(aggregator, topic, &committed).await }
            }
        }
    }

    /// Changes the tables and records the mode. Returns how many identities the new ledger of the totals has.
    async fn finish(&self, to: ProcessingMode) -> Result<u64, PgError> {
        let mut connection = self.connection().await?;
        mode::begin_alone(&mut connection).await?;
        let mut identities = 0_i64;
        // Another process may have finished the switch meanwhile.
        if mode::read(&mut connection).await? == RecordedMode::SwitchingTo(to) {
            match to {
                ProcessingMode::Combined => {
                    sqlx::raw_sql(include_str!("../queries/mode/combine.sql")).execute(&mut connection).await?;
                }
                ProcessingMode::Separate => {
                    sqlx::raw_sql(include_str!("../queries/mode/separate.sql")).execute(&mut connection).await?;
                    let count = sqlx::query_scalar("SELECT count(*) FROM agg_identity");
                    identities = count.fetch_one(&mut connection).await?;
                }
            }
            crash::pass(CrashPoint::TablesSwitched);
            mode::record(&mut connection, RecordedMode::Set(to)).await?;
        }
        sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
        Ok(identities.unsigned_abs())
    }

    /// Opens a connection without a time limit for statements, because filling a ledger takes minutes.
    async fn connection(&self) -> Result<PgConnection, PgError> {
        let mut connection = self.postgres.unlimited_connection().await?;
        self.postgres.refuse_distribution(&mut connection).await?;
        let limit = format!("{}s", OLD_WRITERS.as_secs());
        sqlx::query("SELECT set_config('lock_timeout', $1, false)").bind(limit).execute(&mut connection).await?;
        Ok(connection)
    }
}

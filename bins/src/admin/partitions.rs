//! `netagg partitions`: the partitions of `events_raw`.

use std::process::ExitCode;

use clap::Subcommand;
use netagg_core::Month;
use netagg_core::ports::{Clock, SystemClock};
use netagg_pg::{DropError, PgConfig, Postgres, WaitingMonth};

use crate::process::{Variables, outln};
use crate::run_program::run_command;
use crate::tables::{right_align, table};
use crate::{Failure, config};

/// The commands for the partitions of `events_raw`.
#[derive(Debug, Subcommand)]
pub(crate) enum PartitionsCommand {
    /// Create the partitions of this month and of the next PARTITIONS_AHEAD months
    Ensure,
    /// List the partitions with their sizes
    List,
    /// Drop the months before a month permanently, with their events and identities; their totals stay
    Drop {
        /// The first month to keep
        #[arg(long, value_name = "YYYY-MM")]
        before: Month,
    },
}

impl PartitionsCommand {
    pub(crate) fn run(self) -> ExitCode {
        let creates_none = !matches!(self, Self::Ensure);
        let configure = |variables: &mut Variables| {
            let postgres = config::postgres(variables, 2, "netagg-partitions");
            (postgres, variables.unless(creates_none, config::partitions_ahead))
        };
        run_command(configure, async |(postgres, ahead), _| partitions(self, postgres, ahead).await)
    }
}

/// Creates partitions, lists them, or drops old partitions.
///
/// # Errors
/// When the database cannot be reached or rejects the change, or when events of the months to drop are still accepted.
async fn partitions(command: PartitionsCommand, config: PgConfig, ahead: u32) -> Result<ExitCode, Failure> {
    let postgres = Postgres::new(config);
    let partitions = postgres.partitions();
    match command {
        PartitionsCommand::Ensure => {
            let ahead = partitions.ensure_ahead(SystemClock.now(), ahead).await?;
            outln!("{} partitions created", ahead.made.len());
            for month in ahead.made {
                outln!("{month}");
            }
            if !ahead.not_made.is_empty() {
                let reasons: Vec<_> = ahead.not_made.into_iter().map(|(_, reason)| reason).collect();
                return Err(Failure::Failed(reasons.join("; ").into()));
            }
        }
        PartitionsCommand::List => {
            let mut table = table(["partition", "month", "events (estimated)", "bytes"]);
            right_align(&mut table, 2..);
            for partition in partitions.list().await? {
                let rows = partition.estimated_rows.map_or("-".to_owned(), |rows| rows.to_string());
                table.add_row([partition.name, partition.month.to_string(), rows, partition.bytes.to_string()]);
            }
            outln!("{table}");
            for WaitingMonth { month, events, .. } in partitions.set_aside().await? {
                outln!("set aside: {events} events of {month}, which has no partition");
            }
            if let Some(month) = postgres.retention().dropped_through().await? {
                outln!("dropped: the months up to {month}");
            }
        }
        PartitionsCommand::Drop { before } => {
            let limits = postgres.settings().recorded_event_limits().await?.unwrap_or_default();
            let dropped = match postgres.retention().drop_before(before, limits, SystemClock.now()).await {
                Ok(dropped) => dropped,
                Err(error @ DropError::StillTaken { .. }) => {
                    return Err(Failure::Usage(format!("--before {before}: {error}")));
                }
                Err(DropError::Store(error)) => return Err(error.into()),
                Err(error) => return Err(Failure::Failed(error.into())),
            };
            outln!("{} months dropped, {} identities removed", dropped.months.len(), dropped.identities);
            for month in dropped.months {
                outln!("{month}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

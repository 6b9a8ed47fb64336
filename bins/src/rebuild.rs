//! `netagg rebuild`: recomputes the totals of days from the stored events.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use netagg_core::{Day, Error, Month};
use netagg_pg::{PgConfig, Postgres, RebuildOptions, RebuildProgress, RebuildReport, Skipped};
use netagg_redis::{RedisCache, RedisConfig};

use crate::Failure;
use crate::arguments::duration;
use crate::audit::check_range;
use crate::config::{self, Groups, Kafka, consumer_groups};
use crate::process::outln;
use crate::process::{Shutdown, Variables};
use crate::progress::progress_bar;
use crate::run_program::run_command;
use crate::tables::{right_align, table};

/// The arguments of a rebuild.
#[derive(Clone, Debug, Args)]
pub(crate) struct Rebuild {
    /// The first day, such as 2025-10-01
    #[arg(long, value_name = "DAY")]
    from: Day,
    /// The last day, inclusive
    #[arg(long, value_name = "DAY")]
    to: Day,
    /// Print the changes, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait in total: for the ingestor to store events that the totals contain, and for other repairs to end
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

/// The servers that a rebuild needs.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// The database of events and totals.
    pub(crate) postgres: PgConfig,
    /// The cache. The rebuild invalidates its entries of changed months.
    pub(crate) redis: RedisConfig,
    /// The broker. Its offsets show whether the ingestor has read all records.
    pub(crate) kafka: Kafka,
    /// The consumer groups of the services.
    pub(crate) groups: Groups,
}

impl Rebuild {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| Servers {
            // A rebuild has two transactions at a time.
            postgres: config::postgres(variables, 3, "netagg-rebuild"),
            redis: variables.unless(self.dry_run, config::redis),
            kafka: Kafka::read(variables),
            groups: Groups::read(variables),
        };
        run_command(configure, async |servers, shutdown| self.rebuild(servers, shutdown).await)
    }

    /// Recomputes the days and prints the changes. The exit code is 1 if a day was skipped.
    ///
    /// # Errors
    /// When the range has dropped months, or the database cannot be reached.
    async fn rebuild(&self, servers: Servers, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        check_range(Some(self.from), Some(self.to))?;
        let postgres = Postgres::new(servers.postgres);
        postgres.check_schema().await?;
        let mut rebuild = postgres.rebuild();
        if !self.dry_run {
            rebuild = rebuild.with_cache(Arc::new(RedisCache::new(servers.redis)?));
        }
        // Without the broker, the rebuild skips days that the ingestor may still complete.
        if let Ok(groups) = consumer_groups(&servers.kafka, servers.groups) {
            rebuild = rebuild.with_consumer_groups(groups);
        }
        let bar = progress_bar(None, "{bar:30} {pos}/{len} days {msg} {elapsed}");
        let report = rebuild.run(&self.options(), &|progress| show(&bar, progress), &shutdown.token()).await;
        bar.finish_and_clear();
        let report = report.map_err(|error| self.explain(error))?;
        if report.days == 0 {
            outln!("Nothing to do: there are no events and no totals from {} to {}.", self.from, self.to);
            return Ok(ExitCode::SUCCESS);
        }
        self.print(&report);
        Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn options(&self) -> RebuildOptions {
        let mut options = RebuildOptions::new(self.from, self.to);
        (options.is_dry_run, options.patience) = (self.dry_run, self.wait);
        options
    }

    fn explain(&self, error: Error) -> Failure {
        match error {
            Error::MonthsDropped { through } => Failure::Usage(format!(
                "--from {}: the events of the months up to {through} are dropped; accepted: a day from {} on",
                self.from,
                through.next().first_day()
            )),
            error => error.into(),
        }
    }

    fn print(&self, report: &RebuildReport) {
        let days = report.days;
        let (changed, rebuilt) = if self.dry_run { ("would change", "checked") } else { ("changed", "rebuilt") };
        if !report.changes.is_empty() {
            let mut table = table(["day", "type", "column", "before", "after"]);
            for change in &report.changes {
                let number = |number: Option<i128>| number.map_or("-".to_owned(), |number| number.to_string());
                table.add_row([
                    change.day.to_string(),
                    change.event_type.to_string(),
                    change.column.as_str().to_owned(),
                    number(change.before),
                    number(change.after),
                ]);
            }
            right_align(&mut table, 3..);
            outln!("{table}");
        }
        let changed_days: BTreeSet<Day> = report.changes.iter().map(|change| change.day).collect();
        outln!("{} of {days} days {rebuilt}, {} {changed}.", report.rebuilt, changed_days.len());
        for (day, reason) in &report.skipped {
            match reason {
                Skipped::Busy => outln!("{day}: skipped: another repair of this day is running"),
                Skipped::IngestorBehind { events } => {
                    outln!("{day}: skipped: its totals contain {events} events that the ingestor has not stored yet");
                }
            }
        }
        let unreached = report.unreached();
        if unreached > 0 {
            outln!("Interrupted: {unreached} days were not reached.");
        }
        if !self.dry_run && !report.is_complete() {
            outln!("The other days stay marked. A running aggregator repairs them, or run the same command again.");
        }
        if !report.stale_months.is_empty() {
            let months = report.stale_months.iter().map(Month::to_string).collect::<Vec<_>>().join(", ");
            outln!(
                "The cache could not be invalidated: the API may return the old totals of {months} until \
                 CACHE_AGG_DAY_TTL and CACHE_AGG_MONTH_TTL have passed."
            );
        }
    }
}

fn show(bar: &ProgressBar, progress: RebuildProgress) {
    bar.set_length(progress.total as u64);
    bar.set_position(progress.done as u64);
    bar.set_message(progress.month.to_string());
}

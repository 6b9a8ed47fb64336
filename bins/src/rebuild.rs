//! Totals of days, recomputed from the stored events.

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
use crate::program::run_command;
use crate::progress::progress_bar;
use crate::tables::{right_align, table};

/// What to rebuild.
#[derive(Clone, Debug, Args)]
pub(crate) struct Rebuild {
    /// The first day, such as 2025-10-01
    #[arg(long, value_name = "DAY")]
    from: Day,
    /// The last day, inclusive
    #[arg(long, value_name = "DAY")]
    to: Day,
    /// Tell what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait in all for the ingestor to store what the totals contain, and for other repairs to end
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Events and totals.
    pub(crate) postgres: PgConfig,
    /// The cache, which is told what changes.
    pub(crate) redis: RedisConfig,
    /// The broker, which knows whether the ingestor has read everything.
    pub(crate) kafka: Kafka,
    /// The services' groups.
    pub(crate) groups: Groups,
}

impl Rebuild {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| Places {
            // Two transactions at a time.
            postgres: config::postgres(variables, 3, "netagg-rebuild"),
            redis: variables.unless(self.dry_run, config::redis),
            kafka: Kafka::read(variables),
            groups: Groups::read(variables),
        };
        run_command(configure, async |places, shutdown| self.rebuild(places, shutdown).await)
    }

    /// Recomputes the days and prints what changed; exit code 1 if a day had to be left as it is.
    ///
    /// # Errors
    /// When the range is of dropped months, or the database cannot be reached.
    async fn rebuild(&self, places: Places, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        check_range(Some(self.from), Some(self.to))?;
        let postgres = Postgres::new(places.postgres);
        postgres.check_schema().await?;
        let mut rebuild = postgres.rebuild();
        if !self.dry_run {
            rebuild = rebuild.with_cache(Arc::new(RedisCache::new(places.redis)?));
        }
        // Without the broker, days that the ingestor may still complete are left as they are.
        if let Ok(groups) = consumer_groups(&places.kafka, places.groups) {
            rebuild = rebuild.with_consumer_groups(groups);
        }
        let bar = progress_bar(None, "{bar:30} {pos}/{len} days {msg} {elapsed}");
        let report = rebuild.run(&self.options(), &|progress| show(&bar, progress), &shutdown.token()).await;
        bar.finish_and_clear();
        let report = report.map_err(|error| self.explain(error))?;
        if report.days == 0 {
            outln!("Nothing to do: no events and no totals from {} to {}.", self.from, self.to);
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
        let (verb, tense) = if self.dry_run { ("would change", "looked at") } else { ("changed", "rebuilt") };
        if !report.changes.is_empty() {
            let mut table = table(["day", "type", "column", "now", "then"]);
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
        let changed: BTreeSet<Day> = report.changes.iter().map(|change| change.day).collect();
        outln!("{} of {days} days {tense}, {} {verb}.", report.rebuilt, changed.len());
        for (day, left) in &report.skipped {
            match left {
                Skipped::Busy => outln!("{day}: left as it is, another repair of it goes on"),
                Skipped::IngestorBehind { events } => {
                    outln!("{day}: left as it is, the ingestor is {events} events behind on that day");
                }
            }
        }
        let stopped = report.unreached();
        if stopped > 0 {
            outln!("Stopped before {stopped} days.");
        }
        if !self.dry_run && !report.is_complete() {
            outln!(
                "The other days stay marked: an aggregator repairs them, or the same command does when it runs again."
            );
        }
        if !report.stale_months.is_empty() {
            let months = report.stale_months.iter().map(Month::to_string).collect::<Vec<_>>().join(", ");
            outln!(
                "The cache could not be told: answers about {months} may be as old as CACHE_AGG_DAY_TTL and \
                 CACHE_AGG_MONTH_TTL allow."
            );
        }
    }
}

fn show(bar: &ProgressBar, progress: RebuildProgress) {
    bar.set_length(progress.total as u64);
    bar.set_position(progress.done as u64);
    bar.set_message(progress.month.to_string());
}

//! Totals of days, recomputed from the stored events.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use comfy_table::CellAlignment;
use indicatif::{ProgressBar, ProgressStyle};
use netagg_core::ports::{Cache, PartitionLag};
use netagg_core::{Day, Error, Month};
use netagg_kafka::KafkaTopics;
use netagg_pg::{Change, PgConfig, Postgres, Repair, Repairs, Skipped};
use netagg_redis::{RedisCache, RedisConfig};
use tokio::time::Instant;

use crate::admin::{duration, table};
use crate::audit::check_range;
use crate::config::{Groups, Kafka};
use crate::output::outln;
use crate::{Failure, Shutdown};

/// How long the broker has to say how far the ingestor is.
const BROKER_LIMIT: Duration = Duration::from_secs(5);

/// How long the cache has to take an invalidation, its first connection included.
const CACHE_LIMIT: Duration = Duration::from_secs(2);

/// What to rebuild.
#[derive(Clone, Debug, Args)]
#[allow(clippy::exhaustive_structs)]
pub struct Rebuild {
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
#[allow(clippy::exhaustive_structs)]
pub struct Places {
    /// Events and totals.
    pub postgres: PgConfig,
    /// The cache, which is told what changes.
    pub redis: RedisConfig,
    /// The broker, which knows whether the ingestor has read everything.
    pub kafka: Kafka,
    /// The services' groups.
    pub groups: Groups,
}

impl Rebuild {
    /// Whether it changes nothing, so that no cache is told.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Recomputes the days and prints what changed; exit code 1 if a day had to be left as it is.
    ///
    /// # Errors
    /// When the range is of dropped months, or the database cannot be reached.
    pub async fn run(self, places: Places, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        check_range(Some(self.from), Some(self.to))?;
        let postgres = Postgres::new(places.postgres.clone());
        postgres.check_schema().await?;
        if let Some(dropped) = postgres.retention().dropped_through().await?.filter(|month| self.from.month() <= *month)
        {
            return Err(Failure::Usage(format!(
                "--from {}: the events of the months up to {dropped} are dropped; accepted: a day from {} on",
                self.from,
                dropped.next().first_day()
            )));
        }
        let repairs = postgres.repairs();
        let days = repairs.days(self.from, self.to).await?;
        if days.is_empty() {
            outln!("Nothing to do: no events and no totals from {} to {}.", self.from, self.to);
            return Ok(ExitCode::SUCCESS);
        }
        if !self.dry_run {
            // Should this end before it is done, an aggregator goes on with it, or the next rebuild.
            repairs.mark(&days).await?;
        }
        let mut patience = Patience { deadline: Instant::now() + self.wait, broker_answers: true };
        let cache = RedisCache::new(places.redis.clone())?;
        let mut cache_limit = CACHE_LIMIT;
        let mut outcome = Outcome::default();
        let bar = progress_bar(days.len());
        for of_month in days.chunk_by(|one, other| one.month() == other.month()) {
            let [first, ..] = of_month else { continue };
            bar.set_message(first.month().to_string());
            let repair = tokio::select! {
                repair = self.prepare(&repairs, of_month, &places, &mut patience) => repair?,
                () = shutdown.token().cancelled_owned() => break,
            };
            let left: Vec<(Day, Skipped)> = repair.skipped().iter().map(|(day, left)| (*day, *left)).collect();
            let changes = if self.dry_run { repair.changes() } else { repair.finish().await? };
            if !self.dry_run && !changes.is_empty() {
                outcome.untold.insert(first.month());
                if tell(&cache, &outcome.untold, cache_limit).await {
                    outcome.untold.clear();
                } else {
                    cache_limit = Duration::ZERO;
                }
            }
            outcome.done += of_month.len() - left.len();
            outcome.changes.extend(changes);
            outcome.left.extend(left);
            bar.inc(of_month.len() as u64);
        }
        bar.finish_and_clear();
        self.print(&outcome, days.len());
        Ok(if outcome.done == days.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Everything up to the change of the totals. It may be broken off anywhere.
    async fn prepare(
        &self,
        repairs: &Repairs,
        days: &[Day],
        places: &Places,
        patience: &mut Patience,
    ) -> Result<Repair, Error> {
        let mut repair = repairs.begin(days, patience.left()).await?;
        if !self.dry_run && repair.uncounted() > 0 {
            repair.count_the_uncounted().await?;
        }
        repair.wait_for_the_ingestor(patience.left()).await?;
        let is_behind = repair.skipped().values().any(|left| matches!(left, Skipped::IngestorBehind { .. }));
        if is_behind && patience.is_read_by_the_ingestor(&places.kafka, &places.groups).await {
            repair.forget_unstored().await?;
        }
        Ok(repair)
    }

    fn print(&self, outcome: &Outcome, days: usize) {
        let (verb, tense) = if self.dry_run { ("would change", "looked at") } else { ("changed", "rebuilt") };
        if !outcome.changes.is_empty() {
            let mut table = table(["day", "type", "column", "now", "then"]);
            for change in &outcome.changes {
                let number = |number: Option<i128>| number.map_or("-".to_owned(), |number| number.to_string());
                table.add_row([
                    change.day.to_string(),
                    change.event_type.to_string(),
                    change.column.as_str().to_owned(),
                    number(change.before),
                    number(change.after),
                ]);
            }
            for column in table.column_iter_mut().skip(3) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            outln!("{table}");
        }
        let changed: BTreeSet<Day> = outcome.changes.iter().map(|change| change.day).collect();
        outln!("{} of {days} days {tense}, {} {verb}.", outcome.done, changed.len());
        for (day, left) in &outcome.left {
            match left {
                Skipped::Busy => outln!("{day}: left as it is, another repair of it goes on"),
                Skipped::IngestorBehind { events } => {
                    outln!("{day}: left as it is, the ingestor is {events} events behind on that day");
                }
            }
        }
        let stopped = days - outcome.done - outcome.left.len();
        if stopped > 0 {
            outln!("Stopped before {stopped} days.");
        }
        if !self.dry_run && outcome.done < days {
            outln!(
                "The other days stay marked: an aggregator repairs them, or the same command does when it runs again."
            );
        }
        if !outcome.untold.is_empty() {
            let months = outcome.untold.iter().map(Month::to_string).collect::<Vec<_>>().join(", ");
            outln!(
                "The cache could not be told: answers about {months} may be as old as CACHE_AGG_DAY_TTL and \
                 CACHE_AGG_MONTH_TTL allow."
            );
        }
    }
}

/// What was done of the days.
#[derive(Debug, Default)]
struct Outcome {
    done: usize,
    changes: Vec<Change>,
    left: Vec<(Day, Skipped)>,
    /// Months that changed, of which the cache does not know.
    untold: BTreeSet<Month>,
}

/// The rest of the command's time to wait, for all months together.
struct Patience {
    deadline: Instant,
    /// Not asked again once it has not answered.
    broker_answers: bool,
}

impl Patience {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether the ingestors read in time all that is in the topic now. A broker that does not answer is a no.
    async fn is_read_by_the_ingestor(&mut self, kafka: &Kafka, groups: &Groups) -> bool {
        if !self.broker_answers {
            return false;
        }
        let found = self.find_read(kafka, groups).await;
        self.broker_answers = found.is_some();
        found.unwrap_or(false)
    }

    async fn find_read(&self, kafka: &Kafka, groups: &Groups) -> Option<bool> {
        let topics = KafkaTopics::new(&kafka.client).ok()?;
        let lag = async || {
            let lag = tokio::time::timeout(BROKER_LIMIT, topics.lag(&groups.ingestor, &kafka.topic)).await;
            lag.ok()?.ok()?
        };
        let now = lag().await?;
        loop {
            let then = lag().await?;
            let is_read = |(now, then): (&PartitionLag, &PartitionLag)| {
                then.lag == 0 || then.committed.is_some_and(|committed| committed >= now.high)
            };
            if now.iter().zip(&then).all(is_read) {
                return Some(true);
            }
            if self.left().is_zero() {
                return Some(false);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Tells the cache which months have changed; whether it could be told within `limit`.
async fn tell(cache: &RedisCache, months: &BTreeSet<Month>, limit: Duration) -> bool {
    let months: Vec<Month> = months.iter().copied().collect();
    let begun = Instant::now();
    while cache.invalidate(&months).await.is_err() {
        if begun.elapsed() >= limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

fn progress_bar(days: usize) -> ProgressBar {
    let bar = ProgressBar::new(days as u64);
    match ProgressStyle::with_template("{bar:30} {pos}/{len} days {msg} {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

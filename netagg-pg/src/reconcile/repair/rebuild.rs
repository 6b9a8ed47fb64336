//! The rebuild of a range of days: it marks the days as dirty, repairs each month, and invalidates the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use netagg_core::ports::{Cache, PartitionLag};
use netagg_core::{ConsumerGroups, Day, Error, Month};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::change::{Change, Skipped};
use super::repairs::Repairs;
use super::run::Repair;
use crate::client::Postgres;
use crate::schema::month_fence;

/// How long the broker may take to return the offsets of the ingestors.
const BROKER_LIMIT: Duration = Duration::from_secs(5);

/// How long the cache may take to accept an invalidation, its first connection included.
const CACHE_LIMIT: Duration = Duration::from_secs(2);

/// The pause between two requests for the offsets of the ingestors.
const OFFSETS_PAUSE: Duration = Duration::from_millis(200);

/// The pause between two attempts to invalidate the cache.
const CACHE_PAUSE: Duration = Duration::from_millis(50);

/// Recomputes the totals of days from the stored events, while the services run.
#[derive(Clone, Debug)]
pub struct Rebuild {
    postgres: Postgres,
    groups: Option<ConsumerGroups>,
    cache: Option<Arc<dyn Cache>>,
}

/// Which days to rebuild, and how long to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuildOptions {
    /// The first day.
    pub from: Day,
    /// The last day, inclusive.
    pub to: Day,
    /// Whether to change nothing and only report the changes.
    pub is_dry_run: bool,
    /// How long to wait in total for the ingestor and for other repairs.
    pub patience: Duration,
}

impl RebuildOptions {
    /// The days from `from` to `to`, both inclusive, with a patience of one minute.
    pub fn new(from: Day, to: Day) -> Self {
        Self { from, to, is_dry_run: false, patience: Duration::from_secs(60) }
    }
}

/// The progress of a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuildProgress {
    /// The month that is being rebuilt.
    pub month: Month,
    /// How many days are rebuilt or skipped.
    pub done: usize,
    /// How many days there are to rebuild.
    pub total: usize,
}

/// The result of a rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuildReport {
    /// How many days of the range have events, totals or identities.
    pub days: usize,
    /// How many of these days are rebuilt.
    pub rebuilt: usize,
    /// The changed sums, in the order of days.
    pub changes: Vec<Change>,
    /// The days that keep their totals for now, and why. They stay marked, and the service that counts repairs them.
    pub skipped: BTreeMap<Day, Skipped>,
    /// Months that changed and could not be invalidated in the cache. The cache may return old responses until they expire.
    pub stale_months: BTreeSet<Month>,
}

impl RebuildReport {
    /// Whether all days are rebuilt.
    pub fn is_complete(&self) -> bool {
        self.rebuilt == self.days
    }

    /// How many days the rebuild did not reach before the shutdown.
    pub fn unreached(&self) -> usize {
        self.days - self.rebuilt - self.skipped.len()
    }
}

impl Postgres {
    /// Returns the rebuild, which recomputes the totals of a range of days.
    pub fn rebuild(&self) -> Rebuild {
        Rebuild { postgres: self.clone(), groups: None, cache: None }
    }
}

impl Rebuild {
    /// Asks the broker of `groups` whether the ingestors have read the whole topic. If they have, the rebuild removes
    /// events from the totals that the ingestor will never store. Otherwise, and without groups, it skips the days of such
    /// events.
    #[must_use]
    pub fn with_consumer_groups(self, groups: ConsumerGroups) -> Self {
        Self { groups: Some(groups), ..self }
    }

    /// Invalidates the changed months in `cache`.
    #[must_use]
    pub fn with_cache(self, cache: Arc<dyn Cache>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Recomputes the days month by month, and calls `on_progress` before and after each month. Marks all days as dirty
    /// first. If the rebuild is interrupted, the service that counts or the next rebuild finishes it.
    ///
    /// Once `shutdown` is cancelled, the rebuild ends before the next change; [`RebuildReport::unreached`] is the number of
    /// days that are left.
    ///
    /// # Errors
    /// [`Error::MonthsDropped`] if the range has days of dropped months. Retryable while the database cannot be reached;
    /// months that were rebuilt before the error stay rebuilt.
    pub async fn run(
        &self,
        options: &RebuildOptions,
        on_progress: &(dyn Fn(RebuildProgress) + Send + Sync),
        shutdown: &CancellationToken,
    ) -> Result<RebuildReport, Error> {
        self.refuse_dropped_months(options).await?;
        let repairs = self.postgres.repairs();
        let days = repairs.days(options.from, options.to).await?;
        let mut report = RebuildReport { days: days.len(), ..RebuildReport::default() };
        if days.is_empty() {
            return Ok(report);
        }
        if !options.is_dry_run {
            repairs.mark(&days).await?;
        }
        let mut patience = Patience { deadline: Instant::now() + options.patience, groups: self.groups.as_ref() };
        let mut cache_limit = CACHE_LIMIT;
        for days in days.chunk_by(|one, other| one.month() == other.month()) {
            let [first, ..] = days else { continue };
            let month = first.month();
            let progress = |done| on_progress(RebuildProgress { month, done, total: report.days });
            progress(report.rebuilt + report.skipped.len());
            let prepared = prepare(&repairs, days, options.is_dry_run, &mut patience);
            let Some(repair) = shutdown.run_until_cancelled(prepared).await else { break };
            let repair = repair?;
            let skipped = repair.skipped().clone();
            let changes = if options.is_dry_run { repair.changes() } else { repair.finish().await? };
            if let Some(cache) = self.cache.as_deref().filter(|_| !options.is_dry_run && !changes.is_empty()) {
                report.stale_months.insert(month);
                if invalidate(cache, &report.stale_months, cache_limit).await {
                    report.stale_months.clear();
                } else {
                    cache_limit = Duration::ZERO;
                }
            }
            report.rebuilt += days.len() - skipped.len();
            report.changes.extend(changes);
            report.skipped.extend(skipped);
            progress(report.rebuilt + report.skipped.len());
        }
        Ok(report)
    }

    async fn refuse_dropped_months(&self, options: &RebuildOptions) -> Result<(), Error> {
        let dropped_through = self
            .postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let dropped_through = month_fence::dropped_through(&mut session).await?;
                session.release();
                Ok(dropped_through)
            })
            .await?;
        match dropped_through {
            Some(through) if options.from.month() <= through => Err(Error::MonthsDropped { through }),
            _ => Ok(()),
        }
    }
}

/// Does all steps before the change of the totals. The caller may drop this future at any point.
async fn prepare(
    repairs: &Repairs,
    days: &[Day],
    is_dry_run: bool,
    patience: &mut Patience<'_>,
) -> Result<Repair, Error> {
    let mut repair = repairs.begin(days, patience.left()).await?;
    if !is_dry_run && repair.uncounted() > 0 {
        repair.count_the_uncounted().await?;
    }
    repair.wait_for_the_ingestor(patience.left()).await?;
    let is_behind = repair.skipped().values().any(|skipped| matches!(skipped, Skipped::IngestorBehind { .. }));
    if is_behind && patience.has_ingestor_read_all().await {
        repair.forget_unstored().await?;
    }
    Ok(repair)
}

/// The time that is left to wait, for all months together.
#[derive(Debug)]
struct Patience<'a> {
    deadline: Instant,
    /// `None` without a broker, and after the broker has not answered once.
    groups: Option<&'a ConsumerGroups>,
}

impl Patience<'_> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether the ingestors read all records that the topic has now before the deadline. `false` if the broker does not
    /// answer.
    async fn has_ingestor_read_all(&mut self) -> bool {
        let Some(groups) = self.groups else { return false };
        let Some(has_read_all) = self.wait_until_read(groups).await else {
            self.groups = None;
            return false;
        };
        has_read_all
    }

    async fn wait_until_read(&self, groups: &ConsumerGroups) -> Option<bool> {
        let now = ingestor_lag(groups).await?;
        loop {
            let then = ingestor_lag(groups).await?;
            let is_read = |(now, then): (&PartitionLag, &PartitionLag)| {
                then.lag == 0 || then.committed.is_some_and(|committed| committed >= now.high)
            };
            if now.iter().zip(&then).all(is_read) {
                return Some(true);
            }
            if self.left().is_zero() {
                return Some(false);
            }
            tokio::time::sleep(OFFSETS_PAUSE).await;
        }
    }
}

/// The lag of the ingestors; `None` if the broker does not answer in time, or has no such topic.
async fn ingestor_lag(groups: &ConsumerGroups) -> Option<Vec<PartitionLag>> {
    tokio::time::timeout(BROKER_LIMIT, groups.offsets.lag(&groups.ingestor, &groups.topic)).await.ok()?.ok()?
}

/// Invalidates `months`. Returns whether the cache accepted it within `limit`.
async fn invalidate(cache: &dyn Cache, months: &BTreeSet<Month>, limit: Duration) -> bool {
    let months: Vec<Month> = months.iter().copied().collect();
    let begun = Instant::now();
    while cache.invalidate(&months).await.is_err() {
        if begun.elapsed() >= limit {
            return false;
        }
        tokio::time::sleep(CACHE_PAUSE).await;
    }
    true
}

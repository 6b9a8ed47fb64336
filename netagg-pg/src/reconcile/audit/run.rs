//! The audit from its snapshot to its report.

use std::collections::BTreeMap;

use netagg_core::{ConsumerGroups, Day, Error, Month, Timestamp};
use tokio::time::Instant;

use super::audit_snapshot::AuditSnapshot;
use super::broker::GroupLags;
use super::catch_up::{PAUSE, catch_up};
use super::compare::{DayResult, Months, TotalsResult};
use super::conflicts;
use super::options::AuditOptions;
use super::report::{AuditReport, TotalsDifference};
use crate::client::{PgError, Postgres, error};
use crate::reconcile::connection::{begin_snapshot, connect, end_snapshot};
use crate::reconcile::day_snapshot::DaySnapshot;
use crate::reconcile::days::DaySelection;
use crate::reconcile::offsets::{self, OffsetReport};
use crate::reconcile::read_progress::OnProgress;
use crate::schema::month_fence;

/// Compares totals with events.
#[derive(Clone, Debug)]
pub struct Audit {
    postgres: Postgres,
    groups: Option<ConsumerGroups>,
}

impl Postgres {
    /// Returns the audit, which compares the totals with the events.
    pub fn audit(&self) -> Audit {
        Audit { postgres: self.clone(), groups: None }
    }
}

impl Audit {
    /// Also compares the processed offsets with the committed offsets of `groups`. This finds lost records, and shows
    /// whether the topic was recreated.
    #[must_use]
    pub fn with_consumer_groups(self, groups: ConsumerGroups) -> Self {
        Self { groups: Some(groups), ..self }
    }

    /// The processed offsets of each service, and the outcomes of their records: first the reports of the ingestor, then
    /// the reports of the aggregator.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn offsets(&self) -> Result<Vec<OffsetReport>, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let reports = offsets::read(&mut session).await?;
                session.release();
                Ok(reports)
            })
            .await
    }

    /// Compares `agg_day` and `agg_month` with `events_raw`, and the ledgers with events and totals. Changes nothing and
    /// blocks no service. While it reads, the server keeps the state of the database from the beginning of the audit.
    ///
    /// If the broker does not answer within 5 s, the audit still succeeds, and [`AuditReport::broker_problem`] has the reason.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn run(&self, options: &AuditOptions, on_progress: &OnProgress<'_>) -> Result<AuditReport, Error> {
        let Some(groups) = &self.groups else {
            let broker_problem = Some("no consumer groups are given".to_owned());
            return Ok(AuditReport { broker_problem, ..self.compare(options, on_progress).await? });
        };
        // The order matters. First the processed offsets: the broker, asked afterwards, has all of them, unless the topic
        // was recreated. Last the snapshot: it has all committed offsets that the broker reported, unless records were
        // lost.
        let processed = self.offsets().await?;
        let mode = self.postgres.recorded_mode().await?.tables();
        let lags = GroupLags::ask(&groups.clone().in_mode(mode)).await;
        let is_recreated = lags.as_ref().is_ok_and(|lags| lags.end_before(&processed));
        let options =
            AuditOptions { topic_is_recreated: options.topic_is_recreated || is_recreated, ..options.clone() };
        let mut report = self.compare(&options, on_progress).await?;
        match lags {
            Ok(lags) => report.offsets.iter_mut().for_each(|offsets| offsets.group = lags.of(offsets).cloned()),
            Err(reason) => report.broker_problem = Some(reason),
        }
        Ok(report)
    }

    async fn compare(&self, options: &AuditOptions, on_progress: &OnProgress<'_>) -> Result<AuditReport, Error> {
        let report = self.try_run(options, on_progress).await.map_err(error::to_core)?;
        let mode = self.postgres.recorded_mode().await?.tables();
        Ok(AuditReport { mode, set_aside: self.postgres.partitions().set_aside().await?, ..report })
    }

    async fn try_run(&self, options: &AuditOptions, on_progress: &OnProgress<'_>) -> Result<AuditReport, PgError> {
        let mut connection = connect(&self.postgres).await?;
        begin_snapshot(&mut connection).await?;
        let dropped_through = month_fence::dropped_through(&mut connection).await?;
        let (from, to) = range(options, dropped_through);
        let offsets = offsets::read(&mut connection).await?;
        let mut report = AuditReport { dropped_through, offsets, ..AuditReport::default() };
        if from > to {
            return Ok(report);
        }
        report.conflicts = conflicts::read(&mut connection, from, to).await?;
        let mut audited = AuditSnapshot::take(&mut connection, &DaySelection::between(from, to), on_progress).await?;
        let months = Months::read(&mut connection, from, to, &audited.snapshot).await?;
        end_snapshot(&mut connection).await?;
        let days = &audited.snapshot.days;
        report.days = days.values().filter(|day| !day.stored.is_empty() || !day.totals.is_empty()).count() as u64;
        report.events = days.values().map(DaySnapshot::events).sum();

        let deadline = Instant::now() + options.patience;
        let mut outcome = catch_up(&mut connection, &audited, options, deadline).await?;
        report.uncounted = outcome.not_yet_counted;
        let mut results = BTreeMap::new();
        loop {
            let days = audited.snapshot.days.iter();
            results.extend(days.map(|(date, day)| (*date, DayResult::of(*date, day, &outcome))));
            let again = results.values().filter(|result| result.awaits_repair()).map(|result| result.day);
            let Some(days) = DaySelection::only(again).filter(|_| Instant::now() < deadline) else { break };
            tokio::time::sleep_until(deadline.min(Instant::now() + PAUSE)).await;
            begin_snapshot(&mut connection).await?;
            audited = AuditSnapshot::take(&mut connection, &days, &|_| {}).await?;
            end_snapshot(&mut connection).await?;
            outcome = catch_up(&mut connection, &audited, options, deadline).await?;
            results.retain(|_, result| !result.awaits_repair());
        }
        months.compare(&results, &mut report.totals);
        for result in results.into_values() {
            result.list(&mut report.totals);
            report.ledgers.extend(result.faults);
            if let TotalsResult::Undecided(undecided) = result.totals {
                report.undecided.push(undecided);
            }
        }
        report.totals.sort_by_key(TotalsDifference::order);
        Ok(report)
    }
}

/// The first and last day to compare, without dropped months.
fn range(options: &AuditOptions, dropped_through: Option<Month>) -> (Day, Day) {
    let first_kept = dropped_through.map(|month| month.next().first_day());
    let from = options.from.unwrap_or(Timestamp::MIN.day());
    (first_kept.map_or(from, |first| first.max(from)), options.to.unwrap_or(Timestamp::MAX.day()))
}

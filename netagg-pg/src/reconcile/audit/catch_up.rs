//! Waiting until one service has caught up with the state of the other service in the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netagg_core::Day;
use sqlx::PgConnection;
use tokio::time::Instant;

use super::audit_snapshot::AuditSnapshot;
use super::options::AuditOptions;
use crate::client::PgError;
use crate::reconcile::day_snapshot::Unmatched;
use crate::reconcile::identity_lookup::{Ledger, look_up, sums_of};
use crate::reconcile::offsets::has_passed;
use crate::reconcile::sums::{SumsByType, subtract};
use crate::stores::progress::{AGGREGATOR, INGESTOR};

/// The longest pause between two lookups, and the pause before a day is compared again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// How long the audit still waits for an event after the service has processed its offset. Such an event can only come if
/// the topic was recreated. Then the service processes these offsets for the second time.
const GRACE: Duration = Duration::from_secs(5);

/// The outcome of identities that only one ledger had in the snapshot, by their day in that ledger.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// The sums over the events that were counted and not stored, and are stored by now.
    pub(super) stored: BTreeMap<Day, SumsByType>,
    /// How many events were stored and not counted, and never will be counted.
    pub(super) never_counted: BTreeMap<Day, u64>,
    /// The sums over the events of `never_counted`.
    pub(super) uncounted: BTreeMap<Day, SumsByType>,
    /// How many events were counted and not stored, and never will be stored.
    pub(super) never_stored: BTreeMap<Day, u64>,
    /// How many events were counted and not stored, and may be stored later.
    pub(super) not_yet_stored: BTreeMap<Day, u64>,
    /// How many events were stored and not counted, and may be counted later.
    pub(super) not_yet_counted: u64,
    /// The days of identities with different contents.
    pub(super) conflicting: BTreeSet<Day>,
}

/// Waits until both ledgers have the unmatched identities of `audited`, until the services have processed their offsets, or until
/// `deadline`.
pub(super) async fn catch_up(
    connection: &mut PgConnection,
    audited: &AuditSnapshot,
    options: &AuditOptions,
    deadline: Instant,
) -> Result<CatchUp, PgError> {
    let AuditSnapshot { snapshot, offsets, .. } = audited;
    let mut outcome = CatchUp::default();
    let conflicts = snapshot.conflicts.iter();
    outcome.conflicting.extend(conflicts.flat_map(|conflict| [conflict.counted_on, conflict.stored_on]));
    let (mut unstored, mut uncounted) = (snapshot.counted_not_stored.clone(), snapshot.stored_not_counted.clone());
    let mut stored = Vec::new();
    let (mut ingestor_passed, mut aggregator_passed) = (false, false);
    let mut passed_at = None;
    let mut pause = Duration::from_millis(20);
    loop {
        let begun = Instant::now();
        // Check progress before the lookup: once a service has passed these offsets, its rows are visible to the lookup.
        ingestor_passed = ingestor_passed
            || !options.topic_is_recreated && has_passed(connection, INGESTOR, AGGREGATOR, offsets).await?;
        aggregator_passed = aggregator_passed
            || !options.topic_is_recreated && has_passed(connection, AGGREGATOR, INGESTOR, offsets).await?;
        look_up(connection, Ledger::Events, &mut unstored, |unmatched, row| {
            if row.content == unmatched.content {
                stored.push(unmatched);
            } else {
                outcome.conflicting.extend([unmatched.day, Day::from(row.day)]);
            }
        })
        .await?;
        look_up(connection, Ledger::Totals, &mut uncounted, |_, _| {}).await?;
        if unstored.is_empty() && uncounted.is_empty() {
            break;
        }
        let nothing_comes = (unstored.is_empty() || ingestor_passed) && (uncounted.is_empty() || aggregator_passed);
        if nothing_comes && *passed_at.get_or_insert(begun) + GRACE <= begun || begun >= deadline {
            break;
        }
        // A slow lookup is repeated less often.
        tokio::time::sleep_until(deadline.min(Instant::now() + pause.max(begun.elapsed()))).await;
        pause = (pause * 2).min(PAUSE);
    }

    outcome.stored = sums_of(connection, &stored).await?;
    *if ingestor_passed { &mut outcome.never_stored } else { &mut outcome.not_yet_stored } = by_day(&unstored);
    if aggregator_passed {
        outcome.uncounted = sums_of(connection, &uncounted).await?;
        outcome.never_counted = by_day(&uncounted);
    } else {
        outcome.not_yet_counted = uncounted.len() as u64;
    }
    // For days with too many unmatched identities to list, the outcome comes from the snapshot alone.
    for (&date, day) in snapshot.days.iter().filter(|(_, day)| day.has_too_many_unmatched) {
        if day.counted_not_stored > 0 {
            outcome.not_yet_stored.insert(date, day.counted_not_stored);
        }
        if audited.aggregator_has_passed && !options.topic_is_recreated {
            outcome.never_counted.insert(date, day.stored_not_counted);
            outcome.uncounted.insert(date, subtract(&day.stored, &day.counted));
        } else {
            outcome.not_yet_counted += day.stored_not_counted;
        }
    }
    Ok(outcome)
}

fn by_day(identities: &[Unmatched]) -> BTreeMap<Day, u64> {
    let mut counts = BTreeMap::new();
    for unmatched in identities {
        *counts.entry(unmatched.day).or_default() += 1;
    }
    counts
}

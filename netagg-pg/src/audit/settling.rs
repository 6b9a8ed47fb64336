//! Waiting until one service has done what the other had in the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netagg_core::Day;
use sqlx::PgConnection;
use tokio::time::Instant;

use super::{AuditOptions, Look, PAUSE};
use crate::accounts::has_passed;
use crate::books::{self, Apart, ByType, Ledger};
use crate::error::PgError;
use crate::{PgAggregateStore, PgEventStore};

/// How long something may still come after its service has passed it, by its own account. That cannot be, unless the
/// topic was made anew: then the account tells of offsets that are there for the second time.
const GRACE: Duration = Duration::from_secs(5);

/// What became of the identities that only one ledger had, by the day they had there.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Sums over what was counted and not stored, and is stored by now.
    pub(super) stored: BTreeMap<Day, ByType>,
    /// What was stored and not counted, is not counted still, and never will be.
    pub(super) never_counted: BTreeMap<Day, u64>,
    /// The sums over it.
    pub(super) uncounted: BTreeMap<Day, ByType>,
    /// What was counted and not stored, is not stored still, and never will be.
    pub(super) never_stored: BTreeMap<Day, u64>,
    /// What was counted and not stored, and may be stored yet.
    pub(super) not_yet_stored: BTreeMap<Day, u64>,
    /// How much was stored and not counted, and may be counted yet.
    pub(super) not_yet_counted: u64,
    /// The days of identities with different contents.
    pub(super) conflicting: BTreeSet<Day>,
}

/// Waits until what only one ledger has in `look` is in the other one, or never will be, or `deadline` is over.
pub(super) async fn settle(
    connection: &mut PgConnection,
    look: &Look,
    options: &AuditOptions,
    deadline: Instant,
) -> Result<Settled, PgError> {
    let Look { books, accounts, .. } = look;
    let mut settled = Settled::default();
    settled.conflicting.extend(books.conflicts.iter().flat_map(|conflict| [conflict.counted_on, conflict.stored_on]));
    let (mut unstored, mut uncounted) = (books.ahead.clone(), books.behind.clone());
    let mut stored = Vec::new();
    let (mut ingestor_passed, mut aggregator_passed) = (false, false);
    let mut passed_at = None;
    let mut pause = Duration::from_millis(20);
    loop {
        let begun = Instant::now();
        // Asked before it is looked: who has passed by now has left what is to be found.
        ingestor_passed = ingestor_passed
            || !options.topic_is_anew
                && has_passed(connection, PgEventStore::SERVICE, PgAggregateStore::SERVICE, accounts).await?;
        aggregator_passed = aggregator_passed
            || !options.topic_is_anew
                && has_passed(connection, PgAggregateStore::SERVICE, PgEventStore::SERVICE, accounts).await?;
        books::look_up(connection, Ledger::Stored, &mut unstored, |apart, content, day| {
            if content == apart.content {
                stored.push(apart);
            } else {
                settled.conflicting.extend([apart.day, day]);
            }
        })
        .await?;
        books::look_up(connection, Ledger::Counted, &mut uncounted, |_, _, _| {}).await?;
        if unstored.is_empty() && uncounted.is_empty() {
            break;
        }
        let nothing_comes = (unstored.is_empty() || ingestor_passed) && (uncounted.is_empty() || aggregator_passed);
        if nothing_comes && *passed_at.get_or_insert(begun) + GRACE <= begun || begun >= deadline {
            break;
        }
        // What takes long to look up is not looked up all the time.
        tokio::time::sleep_until(deadline.min(Instant::now() + pause.max(begun.elapsed()))).await;
        pause = (pause * 2).min(PAUSE);
    }

    settled.stored = books::sums_of(connection, &stored).await?;
    *if ingestor_passed { &mut settled.never_stored } else { &mut settled.not_yet_stored } = by_day(&unstored);
    if aggregator_passed {
        settled.uncounted = books::sums_of(connection, &uncounted).await?;
        settled.never_counted = by_day(&uncounted);
    } else {
        settled.not_yet_counted = uncounted.len() as u64;
    }
    // What was too much to be listed is judged by the snapshot alone.
    for (&day, books) in books.days.iter().filter(|(_, books)| books.is_too_far_apart) {
        if books.ahead > 0 {
            settled.not_yet_stored.insert(day, books.ahead);
        }
        if look.aggregator_has_passed && !options.topic_is_anew {
            settled.never_counted.insert(day, books.behind);
            settled.uncounted.insert(day, books::subtract(&books.stored, &books.counted));
        } else {
            settled.not_yet_counted += books.behind;
        }
    }
    Ok(settled)
}

fn by_day(apart: &[Apart]) -> BTreeMap<Day, u64> {
    let mut counts = BTreeMap::new();
    for apart in apart {
        *counts.entry(apart.day).or_default() += 1;
    }
    counts
}

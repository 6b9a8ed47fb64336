//! The snapshot of one day.

use chrono::{DateTime, Utc};
use netagg_core::Day;
use uuid::Uuid;

use super::sums::SumsByType;

/// An identity that only one of the two ledgers has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unmatched {
    pub(super) key: Uuid,
    pub(super) content: i64,
    /// The day in the ledger that has the identity.
    pub(super) day: Day,
}

/// An identity with different contents in the two ledgers: a conflict that no repair has resolved yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflicting {
    pub(super) key: Uuid,
    pub(super) counted_on: Day,
    pub(super) stored_on: Day,
}

/// The snapshot of one day.
#[derive(Clone, Debug, Default)]
pub(super) struct DaySnapshot {
    /// The rows of `agg_day`.
    pub(super) totals: SumsByType,
    /// The sums over the stored events.
    pub(super) stored: SumsByType,
    /// The sums over the stored events that are counted, under any content and day.
    pub(super) counted: SumsByType,
    /// How many identities the ledger of the events has.
    pub(super) identities: u64,
    /// How many identities the ledger of the totals has.
    pub(super) counted_identities: u64,
    /// How many of the counted identities the ledger of the events has under another day.
    pub(super) stored_elsewhere: u64,
    /// How many identities only the ledger of the totals has.
    pub(super) counted_not_stored: u64,
    /// How many identities only the ledger of the events has, if they are listed.
    pub(super) stored_not_counted: u64,
    /// The first identity that is counted and not stored.
    pub(super) first_counted_not_stored: Option<Unmatched>,
    /// Whether there are too many unmatched identities to list.
    pub(super) has_too_many_unmatched: bool,
    /// Whether there are more conflicts than are listed.
    pub(super) has_more_conflicts: bool,
    /// When the day was last marked dirty, if it is.
    pub(super) marked_at: Option<DateTime<Utc>>,
}

impl DaySnapshot {
    /// How many events are stored.
    pub(super) fn events(&self) -> u64 {
        self.stored.values().map(|sums| u64::try_from(sums.count()).unwrap_or_default()).sum()
    }

    /// Whether the ledger of the totals has all identities of the ledger of the events, under this day.
    pub(super) fn has_counted_all(&self) -> bool {
        self.identities + self.counted_not_stored + self.stored_elsewhere == self.counted_identities
    }
}

//! Daily and monthly totals by event type.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use crate::event::{Event, EventType, IdentifiedEvent, Identity};
use crate::time::Day;

/// The amounts that one event adds to the totals of its day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Contribution {
    /// The identity of the event, with its day.
    pub identity: Identity,
    /// The type of the event.
    pub event_type: EventType,
    /// The duration in seconds; 0 if the event has none.
    pub duration_sec: u32,
    /// Bytes sent by the user.
    pub bytes_up: u64,
    /// Bytes received by the user.
    pub bytes_down: u64,
}

impl Contribution {
    /// The contribution of `event`.
    pub fn of(event: &Event) -> Self {
        Self::with_identity(event, Identity::of(event))
    }

    fn with_identity(event: &Event, identity: Identity) -> Self {
        let fields = event.fields();
        Self {
            identity,
            event_type: fields.event_type,
            duration_sec: fields.duration_sec.unwrap_or(0),
            bytes_up: fields.bytes_up,
            bytes_down: fields.bytes_down,
        }
    }
}

impl From<&IdentifiedEvent> for Contribution {
    fn from(identified: &IdentifiedEvent) -> Self {
        Self::with_identity(&identified.event, identified.identity)
    }
}

/// The sums over some events. The sums of bytes cannot overflow, whatever the number and size of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Totals {
    /// The number of events.
    pub count_events: u64,
    /// The sum of durations in seconds.
    pub sum_duration: u64,
    /// The sum of bytes sent by users.
    pub sum_bytes_up: u128,
    /// The sum of bytes received by users.
    pub sum_bytes_down: u128,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.count_events += other.count_events;
        self.sum_duration += other.sum_duration;
        self.sum_bytes_up += other.sum_bytes_up;
        self.sum_bytes_down += other.sum_bytes_down;
    }
}

impl AddAssign<&Contribution> for Totals {
    fn add_assign(&mut self, event: &Contribution) {
        self.count_events += 1;
        self.sum_duration += u64::from(event.duration_sec);
        self.sum_bytes_up += u128::from(event.bytes_up);
        self.sum_bytes_down += u128::from(event.bytes_down);
    }
}

/// Sums contributions by day and type. The result is ordered by day, then by type.
pub fn sum_by_day<'a>(contributions: impl IntoIterator<Item = &'a Contribution>) -> BTreeMap<(Day, EventType), Totals> {
    let mut sums = BTreeMap::<_, Totals>::new();
    for contribution in contributions {
        *sums.entry((contribution.identity.day, contribution.event_type)).or_default() += contribution;
    }
    sums
}

/// The totals of one period and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct AggregateRow {
    /// The day, or the first day of the month.
    pub date: Day,
    /// The type of the events.
    pub event_type: EventType,
    /// The sums.
    pub totals: Totals,
}

//! Sums over events, as they are compared.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};

use chrono::NaiveDate;
use netagg_core::{Day, EventType, UnknownEventType};

use crate::error::PgError;

/// One of the sums that totals consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::exhaustive_enums)]
pub enum Column {
    /// How many events.
    CountEvents,
    /// Seconds.
    SumDuration,
    /// Bytes sent by users.
    SumBytesUp,
    /// Bytes received by users.
    SumBytesDown,
}

impl Column {
    /// Every column, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::CountEvents, Self::SumDuration, Self::SumBytesUp, Self::SumBytesDown];

    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CountEvents => "count_events",
            Self::SumDuration => "sum_duration",
            Self::SumBytesUp => "sum_bytes_up",
            Self::SumBytesDown => "sum_bytes_down",
        }
    }
}

/// The sums of a day and type, in the order of [`Column::ALL`]. Signed, since differences are such sums, too, and so may
/// be what somebody else wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums([i128; 4]);

impl Sums {
    pub(crate) const ZERO: Self = Self([0; 4]);

    pub(crate) fn of(&self, column: Column) -> i128 {
        self.0[column as usize]
    }

    pub(crate) fn count(&self) -> i128 {
        self.of(Column::CountEvents)
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        for (sum, other) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(other);
        }
    }
}

impl Sub for Sums {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        for (sum, other) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_sub(other);
        }
        self
    }
}

/// Sums by type; one that isn't there has no events.
pub(crate) type ByType = BTreeMap<EventType, Sums>;

/// Adds all of `other` to `sums`.
pub(crate) fn add(sums: &mut ByType, other: &ByType) {
    for (event_type, other) in other {
        *sums.entry(*event_type).or_default() += *other;
    }
}

/// What `sums` has more than `other`.
pub(crate) fn subtract(sums: &ByType, other: &ByType) -> ByType {
    let of_other = |event_type| other.get(event_type).copied().unwrap_or_default();
    sums.iter().map(|(event_type, sums)| (*event_type, *sums - of_other(event_type))).collect()
}

/// What the database has for a type, and what it should have; only where they are not the same. `None` is no row.
pub(crate) fn differing(found: &ByType, wanted: &ByType) -> Vec<(EventType, Option<Sums>, Option<Sums>)> {
    EventType::ALL
        .into_iter()
        .map(|event_type| {
            let wanted = wanted.get(&event_type).copied().filter(|wanted| *wanted != Sums::ZERO);
            (event_type, found.get(&event_type).copied(), wanted)
        })
        .filter(|(_, found, wanted)| found != wanted)
        .collect()
}

/// Day, type, and the four sums.
pub(crate) type SumsRow = (NaiveDate, String, String, String, String, String);

pub(crate) fn decode(row: SumsRow) -> Result<(Day, EventType, Sums), PgError> {
    let (day, event_type, count, duration, bytes_up, bytes_down) = row;
    let day = Day::from(day);
    let event_type = event_type.parse().map_err(|error: UnknownEventType| PgError::unreadable("a type", error))?;
    let mut sums = Sums::ZERO;
    for (sum, text) in sums.0.iter_mut().zip([count, duration, bytes_up, bytes_down]) {
        // Not what netagg writes: a fraction, say, that somebody else did.
        *sum = text
            .parse()
            .map_err(|_| PgError::unreadable("a sum", format!("{text} of {event_type} on {day} is no integer")))?;
    }
    Ok((day, event_type, sums))
}

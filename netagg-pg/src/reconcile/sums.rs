//! Sums over events, and their comparison.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};

use chrono::NaiveDate;
use netagg_core::{Day, EventType};
use sqlx::FromRow;

use crate::client::{PgError, rows};

/// One of the sums in a row of totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// The number of events.
    CountEvents,
    /// The sum of the durations, in seconds.
    SumDuration,
    /// The sum of the bytes that users sent.
    SumBytesUp,
    /// The sum of the bytes that users received.
    SumBytesDown,
}

impl Column {
    /// Every column, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::CountEvents, Self::SumDuration, Self::SumBytesUp, Self::SumBytesDown];

    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CountEvents => "count_events",
            Self::SumDuration => "sum_duration",
            Self::SumBytesUp => "sum_bytes_up",
            Self::SumBytesDown => "sum_bytes_down",
        }
    }
}

/// The sums of a day and type, in the order of [`Column::ALL`]. They are signed, because differences of sums may be
/// negative, and other programs may have written negative totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums([i128; 4]);

impl Sums {
    pub(super) const ZERO: Self = Self([0; 4]);

    pub(super) fn of(&self, column: Column) -> i128 {
        self.0[column as usize]
    }

    pub(super) fn count(&self) -> i128 {
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

/// Sums by type. A missing type has no events.
pub(super) type SumsByType = BTreeMap<EventType, Sums>;

/// Adds all of `other` to `sums`.
pub(super) fn add(sums: &mut SumsByType, other: &SumsByType) {
    for (event_type, other) in other {
        *sums.entry(*event_type).or_default() += *other;
    }
}

/// Subtracts `other` from `sums`.
pub(super) fn subtract(sums: &SumsByType, other: &SumsByType) -> SumsByType {
    let of_other = |event_type| other.get(event_type).copied().unwrap_or_default();
    sums.iter().map(|(event_type, sums)| (*event_type, *sums - of_other(event_type))).collect()
}

/// Returns each type whose found and wanted sums differ, with both sums. `None` stands for no row.
pub(super) fn differing(found: &SumsByType, wanted: &SumsByType) -> Vec<(EventType, Option<Sums>, Option<Sums>)> {
    EventType::ALL
        .into_iter()
        .map(|event_type| {
            let wanted = wanted.get(&event_type).copied().filter(|wanted| *wanted != Sums::ZERO);
            (event_type, found.get(&event_type).copied(), wanted)
        })
        .filter(|(_, found, wanted)| found != wanted)
        .collect()
}

/// The sums of a day and type. They are text, because `numeric` has no Rust type here.
#[derive(Debug, FromRow)]
pub(super) struct SumsRow {
    day: NaiveDate,
    #[sqlx(rename = "type")]
    event_type: String,
    count_events: String,
    sum_duration: String,
    sum_bytes_up: String,
    sum_bytes_down: String,
}

impl SumsRow {
    pub(super) fn decode(self) -> Result<(Day, EventType, Sums), PgError> {
        let day = Day::from(self.day);
        let event_type = rows::event_type(&self.event_type)?;
        let mut sums = Sums::ZERO;
        let texts = [self.count_events, self.sum_duration, self.sum_bytes_up, self.sum_bytes_down];
        for (sum, text) in sums.0.iter_mut().zip(texts) {
            // Another program may have written a fraction, which netagg never does.
            *sum = text
                .parse()
                .map_err(|_| PgError::unreadable("a sum", format!("{text} of {event_type} on {day} is no integer")))?;
        }
        Ok((day, event_type, sums))
    }
}

//! The selection of days to compare or repair.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use netagg_core::Day;

/// A selection of days.
#[derive(Clone, Debug)]
pub(super) struct DaySelection {
    pub(super) from: Day,
    pub(super) to: Day,
    /// The selected days between `from` and `to`; `None` selects all of them.
    pub(super) only: Option<Vec<NaiveDate>>,
}

impl DaySelection {
    /// The days from `from` to `to`, both inclusive.
    pub(super) fn between(from: Day, to: Day) -> Self {
        Self { from, to, only: None }
    }

    /// Only `days`; `None` if there are no days.
    pub(super) fn only(days: impl IntoIterator<Item = Day>) -> Option<Self> {
        let days: BTreeSet<Day> = days.into_iter().collect();
        let (from, to) = (*days.first()?, *days.last()?);
        Some(Self { from, to, only: Some(days.into_iter().map(Day::to_date).collect()) })
    }
}

/// The first instant of `day`.
pub(super) fn start_of(day: Day) -> DateTime<Utc> {
    day.to_date().and_time(NaiveTime::MIN).and_utc()
}

/// The first instant after `day`.
pub(super) fn end_of(day: Day) -> DateTime<Utc> {
    start_of(day) + chrono::Days::new(1)
}

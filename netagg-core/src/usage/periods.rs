//! The days or months of a request in its time zone, as ranges of instants.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::aggregate::{AggregateRow, Totals};
use crate::granularity::Granularity;
use crate::ports::PeriodSums;
use crate::time::{Day, Timestamp};
use crate::zone::Zone;

/// Consecutive days or months of a time zone. A day that the zone leaves out is not among them.
///
/// ```
/// use netagg_core::usage::Periods;
/// use netagg_core::{Granularity, Zone};
///
/// let (first, last) = ("2025-10-31".parse()?, "2025-11-01".parse()?);
/// let months = Periods::new(Granularity::Month, first, last, &Zone::UTC);
/// let ends: Vec<_> = months.iter().map(|(date, range)| format!("{date} ends at {}", range.end)).collect();
/// assert_eq!(ends, ["2025-10-01 ends at 2025-11-01T00:00:00Z", "2025-11-01 ends at 2025-12-01T00:00:00Z"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Periods {
    /// The date of each period: the day, or the first day of the month.
    dates: Vec<Day>,
    /// The start of each period, and the end of the last period.
    bounds: Vec<Timestamp>,
}

impl Periods {
    /// The days from `first` to `last`, or the months that contain these days.
    pub fn new(granularity: Granularity, first: Day, last: Day, zone: &Zone) -> Self {
        let mut date = match granularity {
            Granularity::Day => first,
            Granularity::Month => first.month().first_day(),
        };
        let mut periods = Self { dates: Vec::new(), bounds: vec![zone.start_of(date)] };
        while date <= last {
            let last_day = match granularity {
                Granularity::Day => date,
                Granularity::Month => date.month().last_day(),
            };
            let end = zone.end_of(last_day);
            if periods.bounds.last().is_none_or(|start| *start < end) {
                periods.dates.push(date);
                periods.bounds.push(end);
            } else if let Some(start) = periods.bounds.last_mut() {
                *start = end;
            }
            date = last_day.saturating_add_days(1);
            // No day follows the last day of the calendar.
            if date == last_day {
                break;
            }
        }
        periods
    }

    /// The date of each period (the day, or the first day of the month) and its instants, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (Day, Range<Timestamp>)> {
        std::iter::zip(&self.dates, self.bounds.windows(2)).map(|(date, bounds)| (*date, bounds[0]..bounds[1]))
    }

    pub(super) fn bounds(&self) -> &[Timestamp] {
        &self.bounds
    }

    /// Whether there is no period.
    pub(super) fn is_empty(&self) -> bool {
        self.dates.is_empty()
    }

    /// The end of the last period.
    pub(super) fn end(&self) -> Timestamp {
        self.bounds.last().copied().unwrap_or(Timestamp::MIN)
    }

    /// Returns `sums` as rows, ordered by date and type.
    pub(super) fn rows(&self, sums: Vec<PeriodSums>) -> Vec<AggregateRow> {
        let mut rows = BTreeMap::<_, Totals>::new();
        for PeriodSums { period, event_type, totals } in sums {
            if let Some(date) = self.dates.get(period) {
                *rows.entry((*date, event_type)).or_default() += totals;
            }
        }
        let row = |((date, event_type), totals)| AggregateRow { date, event_type, totals };
        rows.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(granularity: Granularity, first: &str, last: &str, zone: &str) -> Vec<String> {
        let day = |text: &str| text.parse::<Day>().expect("a day");
        let periods = Periods::new(granularity, day(first), day(last), &zone.parse().expect("a zone"));
        assert_eq!(periods.dates.len() + 1, periods.bounds.len());
        periods.dates.iter().zip(periods.bounds()).map(|(date, start)| format!("{date} {start}")).collect()
    }

    #[test]
    fn days_and_months_follow_the_time_zone() {
        assert_eq!(
            bounds(Granularity::Day, "2025-10-25", "2025-10-27", "Europe/Berlin"),
            ["2025-10-25 2025-10-24T22:00:00Z", "2025-10-26 2025-10-25T22:00:00Z", "2025-10-27 2025-10-26T23:00:00Z"]
        );
        assert_eq!(
            bounds(Granularity::Month, "2025-10-31", "2025-11-01", "Asia/Kathmandu"),
            ["2025-10-01 2025-09-30T18:15:00Z", "2025-11-01 2025-10-31T18:15:00Z"]
        );
        assert_eq!(
            bounds(Granularity::Day, "2011-12-29", "2011-12-31", "Pacific/Apia"),
            ["2011-12-29 2011-12-29T10:00:00Z", "2011-12-31 2011-12-30T10:00:00Z"],
            "the zone left out the 30th"
        );
        assert!(bounds(Granularity::Day, "2011-12-30", "2011-12-30", "Pacific/Apia").is_empty());
        assert_eq!(
            bounds(Granularity::Day, "9999-12-30", "9999-12-31", "UTC"),
            ["9999-12-30 9999-12-30T00:00:00Z", "9999-12-31 9999-12-31T00:00:00Z"]
        );
    }
}

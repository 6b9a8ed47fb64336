//! Time zones, which decide when the days and months of a calendar begin.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::time::{Day, Timestamp};

/// A time zone of the [IANA database](https://www.iana.org/time-zones). This crate contains the database from the time of its
/// build, and does not read the files of the operating system. A zone parses from and prints as its name, such as
/// `Europe/Moscow`.
///
/// ```
/// use netagg_core::{Timestamp, Zone};
///
/// let berlin: Zone = "Europe/Berlin".parse()?;
/// let day = "2025-03-30".parse()?; // this day has 23 hours
/// let (start, next): (Timestamp, Timestamp) = ("2025-03-29T23:00:00Z".parse()?, "2025-03-30T22:00:00Z".parse()?);
/// assert_eq!((berlin.start_of(day), berlin.day_of(start)), (start, day));
/// assert_eq!(berlin.start_of(day.saturating_add_days(1)), next);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// A description of the accepted names, for messages to users.
    pub const ACCEPTED: &str = "UTC or a name of the IANA time zone database such as Europe/Moscow";
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The name of the zone in the database.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The day of the zone's calendar that contains `at`.
    pub fn day_of(&self, at: Timestamp) -> Day {
        if *self == Self::UTC {
            return at.day();
        }
        let date = jiff::Timestamp::from_microsecond(at.as_micros()).map(|at| self.0.to_datetime(at).date());
        date.ok().and_then(from_date).unwrap_or_else(|| at.day())
    }

    /// The date, the time of day and the offset from UTC at an instant in the zone, for people.
    ///
    /// ```
    /// use netagg_core::Zone;
    ///
    /// let zone: Zone = "Europe/Moscow".parse()?;
    /// assert_eq!(zone.local_time("2025-10-20T12:34:56Z".parse()?), "2025-10-20 15:34:56+03:00");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn local_time(&self, at: Timestamp) -> String {
        match jiff::Timestamp::from_microsecond(at.as_micros()) {
            Ok(instant) => instant.to_zoned_datetime(self.0.clone()).strftime("%Y-%m-%d %H:%M:%S%.f%:z").to_string(),
            Err(_) => at.to_string(),
        }
    }

    /// The first instant of `day` in the zone.
    ///
    /// - If the day begins twice, this is the earlier instant.
    /// - If the zone skipped the day, this is the first instant after the gap.
    /// - If this instant is outside the years 0001 to 9999, the result is [`Timestamp::MIN`] or [`Timestamp::MAX`].
    pub fn start_of(&self, day: Day) -> Timestamp {
        if *self == Self::UTC {
            return day.start().unwrap_or(Timestamp::MAX);
        }
        let micros = self.first_of(day).map(jiff::Timestamp::as_microsecond);
        let edge = if day > Timestamp::MIN.day().saturating_add_days(2) { Timestamp::MAX } else { Timestamp::MIN };
        micros.ok().and_then(Timestamp::from_micros).unwrap_or(edge)
    }

    /// The first instant after `day` in the zone: the start of the next day. No day follows the last day of the calendar, so its end
    /// is [`Timestamp::MAX`].
    pub fn end_of(&self, day: Day) -> Timestamp {
        let next = day.saturating_add_days(1);
        if next > day { self.start_of(next) } else { Timestamp::MAX }
    }

    fn first_of(&self, day: Day) -> Result<jiff::Timestamp, jiff::Error> {
        let midnight = self.0.to_ambiguous_zoned_datetime(to_date(day)?.at(0, 0, 0, 0));
        if !matches!(midnight.offset(), AmbiguousOffset::Gap { .. }) {
            return Ok(midnight.compatible()?.timestamp());
        }
        // The clocks skipped midnight, perhaps from 23:30 to 00:30. The day begins at the instant of this jump.
        let before = midnight.earlier()?.timestamp();
        Ok(self.0.following(before).next().map_or(before, |jump| jump.timestamp()))
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        if matches!(name, "UTC" | "Etc/UTC") {
            return Ok(Self::UTC);
        }
        // `TimeZone::get` accepts names in any letter case, and netagg accepts only the exact name.
        let zone = TimeZone::get(name).map(Self).map_err(|_| UnknownZone)?;
        if zone.name() == name { Ok(zone) } else { Err(UnknownZone) }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for a text that is not the name of a [`Zone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone: {} is accepted", Zone::ACCEPTED)]
pub struct UnknownZone;

fn to_date(day: Day) -> Result<Date, jiff::Error> {
    let (year, month, day) = day.to_ymd();
    Date::new(year, month, day)
}

fn from_date(date: Date) -> Option<Day> {
    Day::from_ymd(date.year(), date.month(), date.day())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> Zone {
        name.parse().expect(name)
    }

    #[test]
    fn only_the_exact_names_of_the_database_are_accepted() {
        for name in ["Europe/Moscow", "Asia/Kathmandu", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "UTC"] {
            assert_eq!(zone(name).to_string(), name);
        }
        assert_eq!(zone("Etc/UTC"), Zone::UTC);
        for name in ["", "utc", "europe/moscow", "Europe/Moscow ", "MSK", "+03:00", "../UTC", "Europe", "Mars/Olympus"]
        {
            assert_eq!(name.parse::<Zone>(), Err(UnknownZone), "{name}");
        }
    }

    #[test]
    fn days_begin_where_the_calendar_says() {
        for (name, day, start) in [
            ("UTC", "2025-10-20", "2025-10-20T00:00:00Z"),
            ("Europe/Moscow", "2025-10-20", "2025-10-19T21:00:00Z"),
            ("Asia/Kathmandu", "2025-10-20", "2025-10-19T18:15:00Z"),
            ("Australia/Lord_Howe", "2025-04-06", "2025-04-05T13:00:00Z"), // this day has 24.5 hours
            ("Australia/Lord_Howe", "2025-04-07", "2025-04-06T13:30:00Z"),
            ("America/Havana", "2025-11-02", "2025-11-02T04:00:00Z"), // its first hour occurs twice
            ("America/Santiago", "2025-09-07", "2025-09-07T04:00:00Z"), // it has no midnight
            ("America/Toronto", "1919-03-31", "1919-03-31T04:30:00Z"), // it has no midnight and begins at 00:30
            ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),   // the zone skipped this day
            ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
        ] {
            let (day, at): (Day, Timestamp) = (day.parse().expect("a day"), start.parse().expect("a time"));
            assert_eq!(zone(name).start_of(day), at, "{name} {day}");
        }
    }

    #[test]
    fn the_calendar_has_the_years_0001_to_9999() {
        let day = |text: &str| text.parse::<Day>().expect("valid");
        for name in ["UTC", "Asia/Tokyo", "America/New_York"] {
            assert!(zone(name).start_of(day("9999-12-31")) > zone(name).start_of(day("9999-12-29")), "{name}");
            assert!(zone(name).start_of(day("0001-01-01")) < zone(name).start_of(day("0001-01-03")), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_day_contains_its_instants(
            seconds in 0_i64..4_102_444_800,
            name in prop::sample::select(vec!["Europe/Moscow", "America/New_York", "Asia/Tehran", "Pacific/Chatham"]),
        ) {
            let (zone, at) = (zone(name), Timestamp::from_millis(seconds * 1_000).expect("in range"));
            let day = zone.day_of(at);
            prop_assert!(zone.start_of(day) <= at && at < zone.start_of(day.saturating_add_days(1)), "{day}");
        }
    }
}

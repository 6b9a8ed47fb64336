//! The instants, days and months in UTC that netagg stores and compares.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// 0001-01-01T00:00:00Z
const MIN_MICROS: i64 = -62_135_596_800 * MICROS_PER_SECOND;
/// 9999-12-31T23:59:59.999999Z
const MAX_MICROS: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// An instant in UTC, to the microsecond, within the years 0001 to 9999.
///
/// A timestamp parses from [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339). It prints as RFC 3339 with `Z`, and with a
/// fraction only if the fraction is not zero.
///
/// ```
/// use netagg_core::Timestamp;
///
/// let at: Timestamp = "2025-10-20T15:34:56.1234567+03:00".parse()?;
/// assert_eq!(at.to_string(), "2025-10-20T12:34:56.123456Z");
/// // A leap second is the first instant of the next minute.
/// let leap: Timestamp = "2016-12-31T23:59:60Z".parse()?;
/// assert_eq!(leap.to_string(), "2017-01-01T00:00:00Z");
/// # Ok::<(), netagg_core::ParseTimeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first instant that can be represented, 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(MIN_MICROS);
    /// The last instant that can be represented, 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(MAX_MICROS);

    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z; `None` outside the years 0001 to 9999.
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros < MIN_MICROS || micros > MAX_MICROS { None } else { Some(Self(micros)) }
    }

    /// The instant `millis` milliseconds after 1970-01-01T00:00:00Z; `None` outside the years 0001 to 9999.
    pub const fn from_millis(millis: i64) -> Option<Self> {
        match millis.checked_mul(1_000) {
            Some(micros) => Self::from_micros(micros),
            None => None,
        }
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The instant `by` later, but at most [`MAX`](Self::MAX).
    pub fn saturating_add(self, by: std::time::Duration) -> Self {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(by).min(MAX_MICROS))
    }

    /// The instant `by` earlier, but at least [`MIN`](Self::MIN).
    pub fn saturating_sub(self, by: std::time::Duration) -> Self {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(by).max(MIN_MICROS))
    }

    /// The UTC day of this instant.
    pub fn day(self) -> Day {
        Day::from_epoch_days(self.0.div_euclid(MICROS_PER_DAY))
    }

    /// The same instant for chrono.
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }
}

impl TryFrom<DateTime<Utc>> for Timestamp {
    type Error = ParseTimeError;

    /// Cuts digits after the microsecond.
    fn try_from(at: DateTime<Utc>) -> Result<Self, ParseTimeError> {
        Self::from_micros(at.timestamp_micros()).ok_or(ParseTimeError::YearOutOfRange)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = self.day();
        let of_day = self.0.rem_euclid(MICROS_PER_DAY);
        let (seconds, micros) = (of_day / MICROS_PER_SECOND, of_day % MICROS_PER_SECOND);
        write!(f, "{day}T{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)?;
        if micros != 0 {
            let digits = format!("{micros:06}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        parse_rfc3339(text.as_bytes())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not an instant, a day or a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTimeError {
    /// The text does not have the form of RFC 3339.
    #[error("not RFC 3339: a time such as 2025-10-20T12:34:56Z is accepted")]
    Malformed,
    /// The text has the right form, but this date or time of day does not exist.
    #[error("no such date or time")]
    NoSuchTime,
    /// The time is outside the years 0001 to 9999 in UTC.
    #[error("outside the years 0001 to 9999 in UTC")]
    YearOutOfRange,
    /// The text is not a date of the form `YYYY-MM-DD`.
    #[error("not a date: YYYY-MM-DD is accepted")]
    MalformedDay,
    /// The text is not a month of the form `YYYY-MM`.
    #[error("not a month: YYYY-MM is accepted")]
    MalformedMonth,
}

/// Parses `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`.
///
/// This does not use chrono's parser for two reasons. chrono also accepts forms that the contract of netagg rejects, such as a
/// space instead of `T`. And this is the most frequently used parser of the pipeline.
fn parse_rfc3339(text: &[u8]) -> Result<Timestamp, ParseTimeError> {
    use ParseTimeError::{Malformed, NoSuchTime, YearOutOfRange};
    let (head, rest) = text.split_at_checked(19).ok_or(Malformed)?;
    let punctuation = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if punctuation.iter().any(|&(at, expected)| head[at] != expected) || !matches!(head[10], b'T' | b't') {
        return Err(Malformed);
    }
    let number = |from: usize, to: usize| digits(&head[from..to]).ok_or(Malformed);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);

    let (micros, zone) = match rest.split_first() {
        Some((b'.', fraction)) => {
            let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if len == 0 {
                return Err(Malformed);
            }
            let cut = &fraction[..len.min(6)];
            let scale = 10_i64.pow(6 - cut.len() as u32);
            (digits(cut).ok_or(Malformed)? * scale, &fraction[len..])
        }
        _ => (0, rest),
    };
    let offset_seconds = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2]).ok_or(Malformed)?, digits(&[*m1, *m2]).ok_or(Malformed)?);
            if hours > 23 || minutes > 59 {
                return Err(NoSuchTime);
            }
            let seconds = hours * 3_600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return Err(Malformed),
    };
    if hour > 23 || minute > 59 || second > 60 {
        return Err(NoSuchTime);
    }
    // chrono has a year 0000. An offset may move a time of this year into 0001, or a time of 9999 out of the range.
    let date = NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32).ok_or(NoSuchTime)?;
    let micros = if second == 60 { 0 } else { micros };
    let days = i64::from(date.num_days_from_ce()) - EPOCH_DAYS_FROM_CE;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset_seconds;
    Timestamp::from_micros(seconds * MICROS_PER_SECOND + micros).ok_or(YearOutOfRange)
}

/// The number in `text`; `None` if a byte is not an ASCII digit.
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// `num_days_from_ce` of 1970-01-01.
const EPOCH_DAYS_FROM_CE: i64 = 719_163;

/// A day of the UTC calendar. Prints and parses as `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(NaiveDate);

impl Day {
    fn from_epoch_days(days: i64) -> Self {
        let from_ce = i32::try_from(days + EPOCH_DAYS_FROM_CE).unwrap_or_default();
        Self(NaiveDate::from_num_days_from_ce_opt(from_ce).unwrap_or_default())
    }

    /// Days since 1970-01-01.
    pub fn epoch_days(self) -> i64 {
        i64::from(self.0.num_days_from_ce()) - EPOCH_DAYS_FROM_CE
    }

    /// The month of this day.
    pub fn month(self) -> Month {
        Month(self.0.with_day(1).unwrap_or(self.0))
    }

    /// The first instant of the day; `None` outside the years 0001 to 9999.
    pub fn start(self) -> Option<Timestamp> {
        Timestamp::from_micros(self.epoch_days() * MICROS_PER_DAY)
    }

    /// The day that is `days` later, or earlier if `days` is negative. The result stays in the years 0001 to 9999.
    pub fn saturating_add_days(self, days: i64) -> Self {
        let (first, last) = (Timestamp::MIN.day().epoch_days(), Timestamp::MAX.day().epoch_days());
        Self::from_epoch_days(self.epoch_days().saturating_add(days).clamp(first, last))
    }

    /// The day with this year, month and day of the month, if it exists in the years 0001 to 9999.
    pub(crate) fn from_ymd(year: i16, month: i8, day: i8) -> Option<Self> {
        let (month, day) = (u32::try_from(month).ok()?, u32::try_from(day).ok()?);
        NaiveDate::from_ymd_opt(year.into(), month, day).filter(|_| year > 0).map(Self)
    }

    /// Year, month and day of the month. Each fits its type.
    pub(crate) fn to_ymd(self) -> (i16, i8, i8) {
        (self.0.year() as i16, self.0.month() as i8, self.0.day() as i8)
    }

    /// The same day for chrono.
    pub fn to_date(self) -> NaiveDate {
        self.0
    }
}

impl From<NaiveDate> for Day {
    fn from(date: NaiveDate) -> Self {
        Self(date)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}

impl FromStr for Day {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text.as_bytes() else {
            return Err(ParseTimeError::MalformedDay);
        };
        let number = |text: &[u8]| digits(text).ok_or(ParseTimeError::MalformedDay);
        let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
        if year == 0 {
            return Err(ParseTimeError::YearOutOfRange);
        }
        NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32).map(Self).ok_or(ParseTimeError::NoSuchTime)
    }
}

/// A month of the UTC calendar. Prints and parses as `YYYY-MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(NaiveDate);

impl Month {
    /// The first day of the month.
    pub fn first_day(self) -> Day {
        Day(self.0)
    }

    /// The last day of the month.
    pub fn last_day(self) -> Day {
        self.next().first_day().saturating_add_days(-1)
    }

    /// The next month.
    pub fn next(self) -> Self {
        Self(self.0.checked_add_months(Months::new(1)).unwrap_or(self.0))
    }

    /// The calendar year.
    pub fn year(self) -> i32 {
        self.0.year()
    }

    /// The month of the year, 1 to 12.
    pub fn number(self) -> u32 {
        self.0.month()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

impl FromStr for Month {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        if text.len() != 7 {
            return Err(ParseTimeError::MalformedMonth);
        }
        let day: Day = format!("{text}-01").parse().map_err(|_| ParseTimeError::MalformedMonth)?;
        Ok(day.month())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<String, ParseTimeError> {
        text.parse::<Timestamp>().map(|at| at.to_string())
    }

    #[test]
    fn times_that_the_contract_accepts() {
        for (text, stored) in [
            ("2025-10-20T12:34:56Z", "2025-10-20T12:34:56Z"),
            ("2025-10-20t12:34:56z", "2025-10-20T12:34:56Z"),
            ("2025-10-20T12:34:56.5Z", "2025-10-20T12:34:56.5Z"),
            ("2025-10-20T12:34:56.9999999999999Z", "2025-10-20T12:34:56.999999Z"),
            ("2025-10-20T00:30:00+23:59", "2025-10-19T00:31:00Z"),
            ("2025-10-20T00:30:00-00:00", "2025-10-20T00:30:00Z"),
            ("2025-06-30T12:10:60.75Z", "2025-06-30T12:11:00Z"),
            ("0000-12-31T23:59:59-00:01", "0001-01-01T00:00:59Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(stored), "{text}");
        }
    }

    #[test]
    fn times_that_the_contract_rejects() {
        for (text, error) in [
            ("", ParseTimeError::Malformed),
            ("2025-10-20", ParseTimeError::Malformed),
            ("2025-10-20 12:34:56Z", ParseTimeError::Malformed),
            ("2025-10-20T12:34:56", ParseTimeError::Malformed),
            ("2025-10-20T12:34:56.Z", ParseTimeError::Malformed),
            ("2025-10-20T12:34:56,5Z", ParseTimeError::Malformed),
            ("2025-10-20T12:34:56+0300", ParseTimeError::Malformed),
            ("2025-10-20T12:34:56Z ", ParseTimeError::Malformed),
            ("+2025-10-20T12:34:56Z", ParseTimeError::Malformed),
            ("2025-10-20T12:34:56+24:00", ParseTimeError::NoSuchTime),
            ("2025-02-29T00:00:00Z", ParseTimeError::NoSuchTime),
            ("2025-10-20T24:00:00Z", ParseTimeError::NoSuchTime),
            ("2025-10-20T12:60:00Z", ParseTimeError::NoSuchTime),
            ("2025-10-20T12:00:61Z", ParseTimeError::NoSuchTime),
            ("0000-12-31T23:59:59Z", ParseTimeError::YearOutOfRange),
            ("0001-01-01T00:00:00+00:01", ParseTimeError::YearOutOfRange),
            ("9999-12-31T23:59:60Z", ParseTimeError::YearOutOfRange),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn days_and_months_are_utc() {
        let at: Timestamp = "2025-01-01T00:30:00+01:00".parse().expect("valid");
        assert_eq!(at.day().to_string(), "2024-12-31");
        assert_eq!(at.day().month().to_string(), "2024-12");
        assert_eq!(at.day().month().last_day().to_string(), "2024-12-31");
        assert_eq!("2024-12".parse::<Month>(), Ok(at.day().month()));
        assert_eq!("2024-13".parse::<Month>(), Err(ParseTimeError::MalformedMonth));
        assert_eq!("2024-02-30".parse::<Day>(), Err(ParseTimeError::NoSuchTime));
    }

    #[test]
    fn days_stay_in_the_years_0001_to_9999() {
        let day = |text: &str| text.parse::<Day>().expect("valid");
        assert_eq!(day("2024-02-28").saturating_add_days(2), day("2024-03-01"));
        assert_eq!(day("0001-01-05").saturating_add_days(-29), day("0001-01-01"));
        assert_eq!(day("9999-12-30").saturating_add_days(i64::MAX), day("9999-12-31"));
        assert_eq!(day("9999-12-01").month().last_day(), day("9999-12-31"));
    }

    proptest! {
        #[test]
        fn an_instant_parses_from_its_text(micros in MIN_MICROS..=MAX_MICROS) {
            let at = Timestamp::from_micros(micros).expect("in range");
            prop_assert_eq!(at.to_string().parse::<Timestamp>(), Ok(at));
            prop_assert!(at.day().start().expect("in range") <= at);
        }
    }
}

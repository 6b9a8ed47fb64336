//! Numbers and times as text for people.

use netagg_core::{Timestamp, Zone};

/// The units of bytes in steps of 1,000.
const BYTE_UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// The units of short numbers in steps of 1,000.
const SHORT_UNITS: [&str; 5] = ["", " k", " M", " G", " T"];

/// An exact number with its digits in groups: `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// The date, the time of day in whole seconds and the offset from UTC: `2025-10-20 15:34:56+03:00`.
pub(super) fn local_time(at: Timestamp, zone: &Zone) -> String {
    let second = at.as_micros().div_euclid(1_000_000) * 1_000_000;
    zone.local_time(Timestamp::from_micros(second).unwrap_or(at))
}

/// Seconds as hours with one digit after the point: `1,234.5`.
pub(super) fn hours(seconds: u64) -> String {
    let tenths = seconds.saturating_add(180) / 360;
    format!("{}.{}", grouped(tenths / 10), tenths % 10)
}

/// A number of bytes with three digits or more: `1.23 GB`.
pub(super) fn bytes(bytes: u128) -> String {
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let (value, unit) = scaled(bytes as f64, &BYTE_UNITS);
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// A number for the axis of a chart, with at most one digit after the point: `250`, `1.5 k`.
pub(super) fn short(number: f64) -> String {
    let (value, unit) = scaled(number, &SHORT_UNITS);
    let digits = usize::from(value.fract() >= 0.05 && value < 100.0);
    format!("{value:.digits$}{unit}")
}

/// Divides `value` by 1,000 until it is below 1,000, and returns the result with its unit. The last unit may have more digits.
fn scaled<'a>(mut value: f64, units: &[&'a str]) -> (f64, &'a str) {
    let (last, smaller) = units.split_last().map_or(("", &[][..]), |(last, smaller)| (*last, smaller));
    for unit in smaller {
        if value < 999.5 {
            return (value, unit);
        }
        value /= 1_000.0;
    }
    (value, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact_where_they_can_be() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        for (seconds, text) in [(0, "0.0"), (179, "0.0"), (180, "0.1"), (3_599, "1.0"), (4_444_200, "1,234.5")] {
            assert_eq!(hours(seconds), text);
        }
        for (amount, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (1_234_567, "1.23 MB"),
            (9_999_999, "10.0 MB"),
            (99_960_000, "100 MB"),
            (999_900_000, "1.00 GB"),
            (12_345_000_000_000, "12.3 TB"),
            (5_000_000_000_000_000_000_000, "5000 EB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
        for (number, text) in [(0.0, "0"), (0.5, "0.5"), (250.0, "250"), (1_500.0, "1.5 k"), (2_000_000.0, "2 M")] {
            assert_eq!(short(number), text);
        }
    }
}

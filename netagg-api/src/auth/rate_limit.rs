//! Rate limits: how often a caller may send requests.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of requests within a second, minute or hour, written `100/s`, `600/m` or `10000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RateLimit {
    requests: NonZeroU32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const ALL: [(&str, Self); 3] = [("s", Self::Second), ("m", Self::Minute), ("h", Self::Hour)];
}

impl RateLimit {
    /// The maximum number of requests. The limiter calculates intervals in nanoseconds, and more requests would
    /// not fit its arithmetic.
    const MAX_REQUESTS: u32 = 1_000_000;

    /// The number of requests.
    pub fn requests(self) -> NonZeroU32 {
        self.requests
    }

    /// The period in which this number of requests is allowed.
    pub fn period(self) -> Duration {
        Duration::from_secs(match self.unit {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3_600,
        })
    }
}

/// The error for a text that is not a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requests in a second, minute or hour, such as 100/s, 600/m or 10000/h, from 1 to 1000000, are accepted")]
pub struct InvalidRateLimit;

impl FromStr for RateLimit {
    type Err = InvalidRateLimit;

    fn from_str(text: &str) -> Result<Self, InvalidRateLimit> {
        let (requests, unit) = text.split_once('/').ok_or(InvalidRateLimit)?;
        let (_, unit) = Unit::ALL.into_iter().find(|(name, _)| *name == unit).ok_or(InvalidRateLimit)?;
        let requests: NonZeroU32 = requests.parse().map_err(|_| InvalidRateLimit)?;
        if requests.get() > Self::MAX_REQUESTS { Err(InvalidRateLimit) } else { Ok(Self { requests, unit }) }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Unit::ALL.into_iter().find(|(_, unit)| *unit == self.unit).map_or("s", |(name, _)| name);
        write!(f, "{}/{unit}", self.requests)
    }
}

impl From<RateLimit> for String {
    fn from(limit: RateLimit) -> Self {
        limit.to_string()
    }
}

impl TryFrom<String> for RateLimit {
    type Error = InvalidRateLimit;

    fn try_from(text: String) -> Result<Self, InvalidRateLimit> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_is_written_as_it_is_parsed() {
        for (text, seconds) in [("100/s", 1), ("1/m", 60), ("1000000/h", 3_600)] {
            let limit: RateLimit = text.parse().expect("valid");
            assert_eq!((limit.to_string(), limit.period()), (text.to_owned(), Duration::from_secs(seconds)));
        }
        for text in ["", "100", "/s", "0/s", "-1/s", "1.5/s", "1/d", "1/S", "1 /s", "1000001/s", "1/s/s"] {
            assert_eq!(text.parse::<RateLimit>(), Err(InvalidRateLimit), "{text}");
        }
    }
}

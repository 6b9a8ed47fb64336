//! The lengths of the periods that totals are given for.

use std::str::FromStr;

/// The length of the periods that totals are given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Granularity {
    /// UTC days.
    Day,
    /// UTC months.
    Month,
}

impl Granularity {
    /// The accepted spellings, for messages to people.
    pub const ACCEPTED: &str = "DAY or MONTH";

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "DAY",
            Self::Month => "MONTH",
        }
    }
}

impl FromStr for Granularity {
    type Err = UnknownGranularity;

    fn from_str(text: &str) -> Result<Self, UnknownGranularity> {
        [Self::Day, Self::Month].into_iter().find(|known| known.as_str() == text).ok_or(UnknownGranularity)
    }
}

/// A text that names no [`Granularity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown granularity: {} is accepted, in upper case", Granularity::ACCEPTED)]
pub struct UnknownGranularity;

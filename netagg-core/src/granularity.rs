//! The lengths of the periods of totals.

use std::str::FromStr;

/// The length of the periods of totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Granularity {
    /// UTC days.
    Day,
    /// UTC months.
    Month,
}

impl Granularity {
    /// A description of the accepted names, for messages to users.
    pub const ACCEPTED: &str = "DAY or MONTH";

    /// The name in the API.
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

/// The error for a text that is not the name of a [`Granularity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown granularity: {} is accepted, in upper case", Granularity::ACCEPTED)]
pub struct UnknownGranularity;

//! Whether one service or two services write events and totals.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Which services write events and totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::exhaustive_enums)]
pub enum ProcessingMode {
    /// An ingestor stores events and an aggregator counts them, each in its own consumer group and with its own ledger.
    #[default]
    Separate,
    /// An ingestor stores and counts events in one transaction, with one ledger.
    Combined,
}

impl ProcessingMode {
    /// Both modes.
    pub const ALL: [Self; 2] = [Self::Separate, Self::Combined];

    /// The name in the database, in environment variables and in commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Separate => "separate",
            Self::Combined => "combined",
        }
    }
}

impl fmt::Display for ProcessingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a name that no mode has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected separate or combined")]
#[non_exhaustive]
pub struct UnknownMode;

impl FromStr for ProcessingMode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name).ok_or(UnknownMode)
    }
}

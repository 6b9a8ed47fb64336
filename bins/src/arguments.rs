//! Values of arguments that several commands take.

use std::time::Duration;

use netagg_core::{HumanDuration, InvalidDuration};

/// Parses a duration, written as in environment variables.
pub(crate) fn duration(text: &str) -> Result<Duration, InvalidDuration> {
    text.parse().map(|HumanDuration(duration)| duration)
}

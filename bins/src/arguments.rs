//! Values of arguments that several commands take.

use std::time::Duration;

use netagg_core::{HumanDuration, InvalidDuration};

/// A duration, as variables have it.
pub(crate) fn duration(text: &str) -> Result<Duration, InvalidDuration> {
    text.parse().map(|HumanDuration(duration)| duration)
}

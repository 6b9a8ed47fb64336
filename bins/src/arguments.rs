//! Values of arguments that several commands take.

use std::time::Duration;

use netagg_program::parse_duration;

/// A duration, as variables have it.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("an integer and a unit (us ms s m h d) is accepted")
}

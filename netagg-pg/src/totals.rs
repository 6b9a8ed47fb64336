//! Totals as statements give them: byte sums as text, since `numeric` has no Rust type here.

use std::num::ParseIntError;

use netagg_core::{EventType, Totals, UnknownEventType};

use crate::error::PgError;

pub(crate) fn decode(count: i64, duration: i64, bytes_up: &str, bytes_down: &str) -> Result<Totals, PgError> {
    let number = |number: i64| u64::try_from(number).map_err(|error| PgError::unreadable("a total", error));
    let sum = |sum: &str| sum.parse().map_err(|error: ParseIntError| PgError::unreadable("a sum", error));
    Ok(Totals {
        count_events: number(count)?,
        sum_duration: number(duration)?,
        sum_bytes_up: sum(bytes_up)?,
        sum_bytes_down: sum(bytes_down)?,
    })
}

pub(crate) fn event_type(text: &str) -> Result<EventType, PgError> {
    text.parse().map_err(|error: UnknownEventType| PgError::unreadable("a type", error))
}

//! Rows that more than one query returns, and their values in netagg's types. Byte sums arrive as text, since `numeric` has
//! no Rust type here.

use std::num::ParseIntError;

use chrono::NaiveDate;
use netagg_core::{ContentHash, Day, EventKey, EventType, Identity, Totals, UnknownEventType};
use sqlx::FromRow;
use uuid::Uuid;

use super::error::PgError;

/// A row of `event_identity` or `agg_identity`.
#[derive(Clone, Copy, Debug, FromRow)]
pub(crate) struct IdentityRow {
    pub(crate) key: Uuid,
    pub(crate) content: i64,
    pub(crate) day: NaiveDate,
}

impl From<IdentityRow> for Identity {
    fn from(row: IdentityRow) -> Self {
        Self {
            key: EventKey::from_bytes(row.key.into_bytes()),
            content: ContentHash::from_i64(row.content),
            day: Day::from(row.day),
        }
    }
}

/// The totals of one event type.
#[derive(Debug, FromRow)]
pub(crate) struct TotalsRow {
    #[sqlx(rename = "type")]
    event_type: String,
    count_events: i64,
    sum_duration: i64,
    sum_bytes_up: String,
    sum_bytes_down: String,
}

impl TotalsRow {
    pub(crate) fn event_type(&self) -> Result<EventType, PgError> {
        event_type(&self.event_type)
    }

    pub(crate) fn totals(&self) -> Result<Totals, PgError> {
        let number = |number: i64| u64::try_from(number).map_err(|error| PgError::unreadable("a total", error));
        let sum = |sum: &str| sum.parse().map_err(|error: ParseIntError| PgError::unreadable("a sum", error));
        Ok(Totals {
            count_events: number(self.count_events)?,
            sum_duration: number(self.sum_duration)?,
            sum_bytes_up: sum(&self.sum_bytes_up)?,
            sum_bytes_down: sum(&self.sum_bytes_down)?,
        })
    }
}

pub(crate) fn event_type(text: &str) -> Result<EventType, PgError> {
    text.parse().map_err(|error: UnknownEventType| PgError::unreadable("a type", error))
}

pub(crate) fn number_of_bytes(bytes: i64) -> Result<u64, PgError> {
    u64::try_from(bytes).map_err(|error| PgError::unreadable("a number of bytes", error))
}

pub(crate) fn seconds(seconds: i32) -> Result<u32, PgError> {
    u32::try_from(seconds).map_err(|error| PgError::unreadable("a duration", error))
}

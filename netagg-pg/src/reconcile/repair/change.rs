//! The results of a repair.

use netagg_core::{Day, EventType};

use crate::reconcile::sums::Column;

/// A sum that a repair changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The day.
    pub day: Day,
    /// The type of the events.
    pub event_type: EventType,
    /// The column.
    pub column: Column,
    /// The sum before the repair; `None` if there was no row.
    pub before: Option<i128>,
    /// The sum after the repair; `None` if there are no events.
    pub after: Option<i128>,
}

/// Why a repair skips a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Another repair of the day is running.
    Busy,
    /// The totals contain events that the ingestor has not stored.
    IngestorBehind {
        /// How many events.
        events: u64,
    },
}

//! The port that reads totals.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::aggregate::AggregateRow;
use crate::event::EventType;
use crate::granularity::Granularity;
use crate::time::{Day, Timestamp};

/// Reads the totals that an [`AggregateStore`](super::AggregateStore) or a [`CombinedStore`](super::CombinedStore) keeps.
#[async_trait]
pub trait TotalsReader: Debug + Send + Sync {
    /// Returns the totals, ordered by date, then by type. A date and type without events has no row.
    ///
    /// # Errors
    /// A retryable error while the store cannot be read.
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error>;

    /// Returns an instant: every event that the log held at this instant is counted. Returns `None` while no such instant is
    /// known, such as from a store that has no information about a log. Totals that are read after this call contain every
    /// event that was counted before this call.
    ///
    /// # Errors
    /// A retryable error while the store cannot be read.
    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(None)
    }
}

/// A query for totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TotalsQuery {
    /// Whether each row of totals is for a day or for a month.
    pub granularity: Granularity,
    /// The first day, inclusive. For months, any day of the first month.
    pub from: Day,
    /// The last day, inclusive. For months, any day of the last month.
    pub to: Day,
    /// The type of the events. `None` means all types.
    pub event_type: Option<EventType>,
}

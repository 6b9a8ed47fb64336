//! How totals are read.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::aggregate::AggregateRow;
use crate::event::EventType;
use crate::granularity::Granularity;
use crate::time::{Day, Timestamp};

/// Answers the totals that an [`AggregateStore`](super::AggregateStore) or a [`CombinedStore`](super::CombinedStore) keeps.
#[async_trait]
pub trait TotalsReader: Debug + Send + Sync {
    /// The totals, ordered by date and type; a row only where there are events.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error>;

    /// An instant up to which every event that the log held then is counted. `None` while none is known, as from a store
    /// that knows no log. Totals that are read afterwards contain everything counted before this call.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(None)
    }
}

/// Which totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TotalsQuery {
    /// By day or by month.
    pub granularity: Granularity,
    /// The first day, inclusive; for months, any day of the first one.
    pub from: Day,
    /// The last day, inclusive; for months, any day of the last one.
    pub to: Day,
    /// Only this type.
    pub event_type: Option<EventType>,
}

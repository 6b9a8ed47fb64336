//! The store of events.

use std::fmt::Debug;

use async_trait::async_trait;
use uuid::Uuid;

use crate::Error;
use crate::aggregate::Totals;
use crate::batch::{Batch, BatchOutcome};
use crate::event::{Event, EventType, IdentifiedEvent, SourceId, UserId};
use crate::time::Timestamp;

/// A store that keeps every event once, and returns the events of a user.
#[async_trait]
pub trait EventStore: Debug + Send + Sync {
    /// Stores the new events, and records the spans of the batch as processed. The call is atomic: readers see the whole
    /// batch or nothing of it.
    ///
    /// The whole batch is durable when the call returns. Identities decide which events are new: of each identity, the first
    /// stored copy stays, whatever its month. A repeated call stores nothing and reports duplicates. Concurrent calls have the
    /// same result as calls one after the other. This includes calls from other processes.
    ///
    /// Besides the events, the same transaction stores:
    ///
    /// - the offsets of [`Batch::spans`], joined with the offsets that were recorded before: the audit and completeness need
    ///   them;
    /// - for each [conflict](crate::Conflict), the days of both copies, which [`TotalsRepair`](super::TotalsRepair) recomputes.
    ///
    /// Not cancel safe: the caller must let the future finish.
    ///
    /// # Errors
    /// After a retryable error, the store has stored the whole batch or nothing of it. The caller can safely repeat the call.
    /// [`Error::MonthsDropped`] if an event lies in a month that retention has dropped. Then the store has stored nothing.
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error>;

    /// Returns the events of a user that follow `query.after`, newest first. Events of the same instant are in ascending
    /// order of `source_id`, then of `event_id`, both compared as bytes.
    ///
    /// Returns at most `query.limit` events. The list also ends with the first event whose [`Event::size`] takes the sum of the
    /// sizes above `query.max_bytes`. The store does not load the events after this event into memory.
    ///
    /// # Errors
    /// A retryable error while the store cannot be read.
    async fn timeline(&self, query: &TimelineQuery) -> Result<Vec<Event>, Error>;

    /// Returns the exact number of events that match.
    ///
    /// # Errors
    /// A retryable error while the store cannot be read.
    async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error>;

    /// Returns the sums over the events of each period and type, ordered by period, then by type. A period and type without
    /// events has no row.
    ///
    /// # Errors
    /// A retryable error while the store cannot be read.
    async fn sums(&self, query: &SumsQuery) -> Result<Vec<PeriodSums>, Error>;

    /// Returns an instant: every event that the log held at this instant is stored. Returns `None` while no such instant is
    /// known, such as from a store that has no information about a log. A read after this call sees every event that was
    /// stored before this call.
    ///
    /// # Errors
    /// A retryable error while the store cannot be read.
    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(None)
    }
}

/// A query for sums over events by period.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct SumsQuery {
    /// The user of the events. `None` means all users.
    pub user_id: Option<UserId>,
    /// The start of each period in ascending order, and then the end of the last period: at least two instants. A period
    /// includes its start and excludes its end.
    pub bounds: Vec<Timestamp>,
    /// The type of the events. `None` means all types.
    pub event_type: Option<EventType>,
}

/// The sums over the events of one period and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct PeriodSums {
    /// The index of the period, from 0.
    pub period: usize,
    /// The type of the events.
    pub event_type: EventType,
    /// The sums.
    pub totals: Totals,
}

/// A filter for the events of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TimelineFilter {
    /// The user.
    pub user_id: UserId,
    /// The start of the range of `started_at`, inclusive.
    pub from: Timestamp,
    /// The end of the range of `started_at`, exclusive.
    pub to: Timestamp,
    /// The type of the events. `None` means all types.
    pub event_type: Option<EventType>,
}

/// A query for one page of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TimelineQuery {
    /// The filter for the events.
    pub filter: TimelineFilter,
    /// The page starts after the event at this position. `None` means that the page starts with the newest event.
    pub after: Option<TimelinePosition>,
    /// The maximum number of events in the page.
    pub limit: u32,
    /// The page ends with the event that takes the sum of the sizes above this number of bytes.
    pub max_bytes: u64,
}

/// The position of an event in the timeline of its user. The event need not exist any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TimelinePosition {
    /// The `started_at` of the event.
    pub started_at: Timestamp,
    /// The `source_id` of the event.
    pub source_id: SourceId,
    /// The `event_id` of the event.
    pub event_id: Uuid,
}

impl TimelinePosition {
    /// The position of `event`.
    pub fn of(event: &Event) -> Self {
        let fields = event.fields();
        Self { started_at: fields.started_at, source_id: fields.source_id.clone(), event_id: fields.event_id }
    }
}

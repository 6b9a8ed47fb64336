//! Where events are kept.

use std::fmt::Debug;

use async_trait::async_trait;
use uuid::Uuid;

use crate::Error;
use crate::aggregate::Totals;
use crate::batch::{Batch, BatchOutcome};
use crate::event::{Event, EventType, IdentifiedEvent, SourceId, UserId};
use crate::time::Timestamp;

/// Keeps every event once, and answers what a user did.
#[async_trait]
pub trait EventStore: Debug + Send + Sync {
    /// Stores the events that are new and notes the batch's spans as done with: atomically, nobody sees half of it.
    ///
    /// All of it is durable when it returns. Identity decides what is new: of one identity the first stored copy stays,
    /// in whatever month it lies; a repeated call stores nothing and reports duplicates. Concurrent calls, of other
    /// processes too, end as if one had come after the other.
    ///
    /// Besides the events, the same transaction keeps:
    ///
    /// - the offsets of [`Batch::spans`], which join with those noted before: audits and completeness need them;
    /// - for each [conflict](crate::Conflict), the days of both copies, which [`TotalsRepair`](super::TotalsRepair) recomputes.
    ///
    /// Not to be cancelled: the caller lets the future finish.
    ///
    /// # Errors
    /// On a retryable one all of the batch was stored, or nothing; the same call again is harmless.
    /// [`Error::MonthsDropped`] when an event lies in a month that is not kept any more: nothing was stored.
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error>;

    /// The events of a user from newest to oldest, those of one instant by `source_id` and `event_id` ascending (by
    /// bytes): those after `query.after`, at most `query.limit`, and none after the one whose [`Event::size`] takes
    /// their sum beyond `query.max_bytes`. What follows that one isn't brought into memory.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    async fn timeline(&self, query: &TimelineQuery) -> Result<Vec<Event>, Error>;

    /// How many events match, exactly.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error>;

    /// The sums over the events of each period, in the order of periods and types; a row only where there are events.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    async fn sums(&self, query: &SumsQuery) -> Result<Vec<PeriodSums>, Error>;

    /// An instant up to which every event that the log held then is stored; `None` while none is known, as from a store
    /// that knows no log. Everything stored before it was asked for is in what is read after.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(None)
    }
}

/// Which events to sum up, by which periods.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct SumsQuery {
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// Where each period starts, ascending, and where the last one ends: two at least. A period has its start and not
    /// its end.
    pub bounds: Vec<Timestamp>,
    /// Only this type.
    pub event_type: Option<EventType>,
}

/// The sums of one period and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct PeriodSums {
    /// Which of the periods, from 0.
    pub period: usize,
    /// The type of the events summed.
    pub event_type: EventType,
    /// The sums.
    pub totals: Totals,
}

/// Which events of which user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TimelineFilter {
    /// The user.
    pub user_id: UserId,
    /// The earliest `started_at`, inclusive.
    pub from: Timestamp,
    /// The latest `started_at`, exclusive.
    pub to: Timestamp,
    /// Only this type.
    pub event_type: Option<EventType>,
}

/// One page of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TimelineQuery {
    /// Which events.
    pub filter: TimelineFilter,
    /// The event the page begins after; the newest is first without it.
    pub after: Option<TimelinePosition>,
    /// The most events to return.
    pub limit: u32,
    /// The events end with the one that takes the sum of their sizes beyond this.
    pub max_bytes: u64,
}

/// The place of an event in its user's timeline; it need not exist any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TimelinePosition {
    /// Its `started_at`.
    pub started_at: Timestamp,
    /// Its `source_id`.
    pub source_id: SourceId,
    /// Its `event_id`.
    pub event_id: Uuid,
}

impl TimelinePosition {
    /// The place of `event`.
    pub fn of(event: &Event) -> Self {
        let fields = event.fields();
        Self { started_at: fields.started_at, source_id: fields.source_id.clone(), event_id: fields.event_id }
    }
}

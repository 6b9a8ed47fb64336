//! The number of stored copies of an event.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Error;
use crate::event::Event;
use crate::memory::MemoryEventStore;
use crate::ports::{EventStore, TimelineFilter, TimelinePosition, TimelineQuery};

/// A store that can count its copies of an event. The verification of a load expects one copy.
#[async_trait]
pub trait StoredCopies: Debug + Send + Sync {
    /// Returns the number of stored copies of each of `events`, in the order of `events`.
    ///
    /// # Errors
    /// A retryable error while the store cannot be read.
    async fn count_copies(&self, events: &[Event]) -> Result<Vec<u64>, Error>;
}

#[async_trait]
impl StoredCopies for MemoryEventStore {
    async fn count_copies(&self, events: &[Event]) -> Result<Vec<u64>, Error> {
        let mut counts = Vec::with_capacity(events.len());
        for event in events {
            let fields = event.fields();
            let filter = TimelineFilter {
                user_id: fields.user_id.clone(),
                from: fields.started_at,
                to: fields.started_at.saturating_add(Duration::from_micros(1)),
                event_type: None,
            };
            let position = TimelinePosition::of(event);
            let found =
                self.timeline(&TimelineQuery { filter, after: None, limit: u32::MAX, max_bytes: u64::MAX }).await?;
            counts.push(found.iter().filter(|found| TimelinePosition::of(found) == position).count() as u64);
        }
        Ok(counts)
    }
}

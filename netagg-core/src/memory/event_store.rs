//! An event store in memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::ledger::Ledger;
use super::progress::Progress;
use crate::Error;
use crate::aggregate::{Contribution, Totals, sum_by_day};
use crate::batch::{Batch, BatchOutcome};
use crate::event::{Event, EventKey, EventType, IdentifiedEvent, UserId};
use crate::ports::{
    CompletenessStore, EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelinePosition, TimelineQuery,
};
use crate::record::{PartitionId, Position};
use crate::time::{Day, Timestamp};

/// Keeps every event once, in memory.
#[derive(Debug, Default)]
pub struct MemoryEventStore(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    ledger: Ledger,
    users: HashMap<UserId, Timeline>,
    progress: Progress,
}

/// The events of one user. The first read after a write sorts them, because writes come in large batches.
#[derive(Debug, Default)]
struct Timeline {
    events: Vec<Event>,
    is_sorted: bool,
}

impl MemoryEventStore {
    /// The name of the service that writes this store, for [`CompletenessStore`].
    pub const SERVICE: &str = "ingestor";

    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of stored events.
    pub fn len(&self) -> usize {
        self.lock().users.values().map(|timeline| timeline.events.len()).sum()
    }

    /// Whether no event is stored.
    pub fn is_empty(&self) -> bool {
        self.lock().users.is_empty()
    }

    /// The sums over all stored events by day and type, like the result of a `GROUP BY` in SQL.
    pub fn sum_by_day(&self) -> BTreeMap<(Day, EventType), Totals> {
        sum_by_day(&self.lock().contributions().collect::<Vec<_>>())
    }

    /// The processed offsets of `partition`, as ranges in ascending order.
    pub fn done(&self, partition: &PartitionId) -> Vec<Range<i64>> {
        self.lock().progress.ranges(partition)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `read` with the events that match the filter, newest first.
    fn read<T>(&self, filter: &TimelineFilter, read: impl FnOnce(&mut dyn Iterator<Item = &Event>) -> T) -> T {
        let mut state = self.lock();
        let Some(timeline) = state.users.get_mut(&filter.user_id) else { return read(&mut std::iter::empty()) };
        if !timeline.is_sorted {
            timeline.events.sort_by(timeline_order);
            timeline.is_sorted = true;
        }
        let first = timeline.events.partition_point(|event| event.fields().started_at >= filter.to);
        let end = timeline.events.partition_point(|event| event.fields().started_at >= filter.from);
        let matches = |event: &&Event| filter.event_type.is_none_or(|wanted| event.fields().event_type == wanted);
        read(&mut timeline.events.get(first..end).unwrap_or(&[]).iter().filter(matches))
    }
}

impl State {
    pub(super) fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    pub(super) fn take_dirty(&mut self) -> BTreeSet<Day> {
        self.ledger.take_dirty()
    }

    pub(super) fn has(&self, key: &EventKey) -> bool {
        self.ledger.get(key).is_some()
    }

    /// Stores the new events of `batch`, and calls `on_stored` for each of them.
    pub(super) fn store(
        &mut self,
        batch: &Batch<IdentifiedEvent>,
        mut on_stored: impl FnMut(&IdentifiedEvent),
    ) -> BatchOutcome {
        let Self { ledger, users, progress } = self;
        let outcome = ledger.record(batch, |item| {
            let timeline = users.entry(item.event.fields().user_id.clone()).or_default();
            timeline.events.push(item.event.clone());
            timeline.is_sorted = false;
            on_stored(item);
        });
        progress.add(batch.spans());
        outcome
    }

    pub(super) fn contributions(&self) -> impl Iterator<Item = Contribution> {
        self.users.values().flat_map(|timeline| &timeline.events).map(Contribution::of)
    }
}

/// The order of a timeline: newest first, then by source and event id.
fn timeline_order(one: &Event, other: &Event) -> Ordering {
    compare_positions(one, &other.fields().started_at, other.fields().source_id.as_str(), other.fields().event_id)
}

fn compare_positions(event: &Event, started_at: &Timestamp, source_id: &str, event_id: uuid::Uuid) -> Ordering {
    let fields = event.fields();
    started_at
        .cmp(&fields.started_at)
        .then_with(|| fields.source_id.as_str().cmp(source_id))
        .then_with(|| fields.event_id.cmp(&event_id))
}

fn is_after(event: &Event, position: &TimelinePosition) -> bool {
    compare_positions(event, &position.started_at, position.source_id.as_str(), position.event_id).is_gt()
}

#[async_trait]
impl EventStore for MemoryEventStore {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        Ok(self.lock().store(batch, |_| {}))
    }

    async fn timeline(&self, query: &TimelineQuery) -> Result<Vec<Event>, Error> {
        Ok(self.read(&query.filter, |events| {
            events
                .filter(|event| query.after.as_ref().is_none_or(|after| is_after(event, after)))
                .take(query.limit as usize)
                .scan(0, |bytes, event| {
                    let is_below_limit = *bytes <= query.max_bytes;
                    *bytes += event.size();
                    is_below_limit.then(|| event.clone())
                })
                .collect()
        }))
    }

    async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error> {
        Ok(self.read(filter, |events| events.count() as u64))
    }

    async fn sums(&self, query: &SumsQuery) -> Result<Vec<PeriodSums>, Error> {
        let state = self.lock();
        let timelines = state.users.iter().filter(|(user, _)| query.user_id.as_ref().is_none_or(|only| only == *user));
        let mut sums = BTreeMap::<_, Totals>::new();
        for event in timelines.flat_map(|(_, timeline)| &timeline.events) {
            let fields = event.fields();
            let before = query.bounds.partition_point(|bound| *bound <= fields.started_at);
            let is_wanted = query.event_type.is_none_or(|only| only == fields.event_type);
            if is_wanted && (1..query.bounds.len()).contains(&before) {
                *sums.entry((before - 1, fields.event_type)).or_default() += &Contribution::of(event);
            }
        }
        let rows = sums.into_iter();
        Ok(rows.map(|((period, event_type), totals)| PeriodSums { period, event_type, totals }).collect())
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        Ok(self.lock().progress.complete_through())
    }
}

#[async_trait]
impl CompletenessStore for MemoryEventStore {
    async fn note_complete(
        &self,
        service: &str,
        topic: &str,
        through: Timestamp,
        committed: &[Position],
    ) -> Result<bool, Error> {
        Ok(service == Self::SERVICE && self.lock().progress.note_complete(topic, through, committed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testkit;

    #[tokio::test]
    async fn the_event_store_passes_its_suite() {
        testkit::event_store(async || Arc::new(MemoryEventStore::new())).await;
    }
}

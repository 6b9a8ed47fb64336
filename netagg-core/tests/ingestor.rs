//! Tests the ingestor through its public interface.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use common::{HOUR, json, log_of};
use mockall::mock;
use mockall::predicate::function;
use netagg_core::memory::{MemoryAggregateStore, MemoryCombinedStore, MemoryDeadLetters, MemoryEventStore};
use netagg_core::ports::{DeadLetters, EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelineQuery};
use netagg_core::{
    Batch, BatchOutcome, ConsumerConfig, DeadLetter, Error, Event, IdentifiedEvent, Ingestor, InvalidKind, PartitionId,
};
use tokio_util::sync::CancellationToken;

mock! {
    #[derive(Debug)]
    Store {}
    #[async_trait]
    impl EventStore for Store {
        async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error>;
        async fn timeline(&self, query: &TimelineQuery) -> Result<Vec<Event>, Error>;
        async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error>;
        async fn sums(&self, query: &SumsQuery) -> Result<Vec<PeriodSums>, Error>;
    }
}

mock! {
    #[derive(Debug)]
    DeadLetters {}
    #[async_trait]
    impl DeadLetters for DeadLetters {
        async fn send(&self, dead_letters: &[DeadLetter]) -> Result<(), Error>;
    }
}

fn rejected() -> Error {
    Error::Refused { dependency: "store", source: "not this one".into() }
}

/// A store that writes batches to `inner`, and rejects each batch that contains an event with an id in `bad`.
fn rejecting_store(inner: &Arc<MemoryEventStore>, bad: &'static [u128]) -> MockStore {
    let mut store = MockStore::new();
    let inner = inner.clone();
    store.expect_store().returning(move |batch| {
        let is_bad = |item: &IdentifiedEvent| bad.contains(&item.event.fields().event_id.as_u128());
        if batch.items().iter().any(is_bad) {
            return Err(rejected());
        }
        futures::executor::block_on(inner.store(batch))
    });
    store
}

fn config(batches_in_flight: usize) -> ConsumerConfig {
    let mut config = ConsumerConfig::default();
    config.batch_size = 3;
    config.batches_in_flight = batches_in_flight;
    config
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_store_rejects_is_dead_lettered_and_the_rest_of_its_batch_is_stored() {
    let copy = json(1);
    let log = log_of([json(1), json(2), "{}".to_owned(), json(3), copy, json(4)]);
    let (events, dead_letters) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()));
    let ingestor = Ingestor::new(Arc::new(rejecting_store(&events, &[2, 4])), dead_letters.clone());
    ingestor.run(&mut log.source("group"), CancellationToken::new()).await.expect("the end");

    assert_eq!(events.len(), 2);
    let kinds: BTreeMap<_, _> =
        dead_letters.sent().into_iter().map(|dead_letter| (dead_letter.record.offset, dead_letter.reason)).collect();
    let found: Vec<_> = kinds.iter().map(|(offset, reason)| (*offset, reason.kind())).collect();
    let by_store = InvalidKind::RefusedByStore;
    assert_eq!(found, [(1, by_store), (2, InvalidKind::MissingField), (5, by_store)]);
    assert_eq!(kinds[&1].to_string(), "found store refuses the data: not this one; accepted: storable data");
    let done = std::iter::once(0..6).collect::<Vec<_>>();
    assert_eq!(events.done(&PartitionId::new("events", 0)), done, "all offsets are processed");
    assert_eq!(log.committed("group")[0].next_offset, 6);
    let stats = ingestor.stats().snapshot();
    assert_eq!((stats.consumed, stats.new, stats.duplicates, stats.invalid, stats.batches), (6, 2, 1, 3, 6));
}

#[tokio::test(start_paused = true)]
async fn events_of_dropped_months_are_dead_lettered_after_one_rejected_batch() {
    let old = json(2).replace("2025-10", "2025-09");
    let log = log_of([json(1), old.clone(), "{}".to_owned(), old, json(3)]);
    let (events, dead_letters) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()));
    let mut store = MockStore::new();
    let inner = events.clone();
    let mut rejections = 0;
    store.expect_store().returning(move |batch| {
        let through = "2025-09".parse().expect("a month");
        if batch.items().iter().any(|item| item.identity.day.month() <= through) {
            rejections += 1;
            assert_eq!(rejections, 1, "the ingestor remembers the dropped month");
            return Err(Error::MonthsDropped { through });
        }
        futures::executor::block_on(inner.store(batch))
    });
    let ingestor = Ingestor::new(Arc::new(store), dead_letters.clone()).with_config(config(1));
    ingestor.run(&mut log.source("group"), CancellationToken::new()).await.expect("the end");

    assert_eq!(events.len(), 2);
    let mut found: Vec<_> = dead_letters
        .sent()
        .into_iter()
        .map(|dead_letter| (dead_letter.record.offset, dead_letter.reason.kind()))
        .collect();
    found.sort_by_key(|(offset, _)| *offset);
    let dropped = InvalidKind::MonthDropped;
    assert_eq!(found, [(1, dropped), (2, InvalidKind::MissingField), (3, dropped)], "each dead letter once");
    assert_eq!(log.committed("group")[0].next_offset, 5);
    assert_eq!(ingestor.stats().snapshot().invalid, 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_as_done_before_its_dead_letters_are_kept() {
    let log = log_of(["{}".to_owned(), json(1)]);
    let mut order = mockall::Sequence::new();
    let mut dead_letters = MockDeadLetters::new();
    let unavailable = || Err(Error::unavailable("dead letters", "down"));
    dead_letters.expect_send().times(3).in_sequence(&mut order).returning(move |_| unavailable());
    dead_letters.expect_send().times(1).in_sequence(&mut order).returning(|_| Ok(()));
    let mut store = MockStore::new();
    let both_records = function(|batch: &Batch<IdentifiedEvent>| batch.items().len() == 1 && batch.spans()[0].to == 2);
    store.expect_store().with(both_records).times(1).in_sequence(&mut order).returning(|_| Ok(BatchOutcome::default()));
    let ingestor = Ingestor::new(Arc::new(store), Arc::new(dead_letters));
    ingestor.run(&mut log.source("group"), CancellationToken::new()).await.expect("the end");
    assert_eq!(log.committed("group")[0].next_offset, 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_retryable_ends_the_run_without_a_commit() {
    let log = log_of([json(1)]);
    let mut store = MockStore::new();
    store.expect_store().times(1).returning(|_| Err(Error::internal("store", "a bug")));
    let ingestor = Ingestor::new(Arc::new(store), Arc::new(MemoryDeadLetters::new()));
    let error = ingestor.run(&mut log.source("group"), CancellationToken::new()).await.expect_err("the store's error");
    assert_eq!(error.to_string(), "store failed: a bug");
    assert_eq!(log.committed("group"), []);
}

#[tokio::test(start_paused = true)]
async fn the_ingestor_waits_for_a_store_that_is_not_set_up() {
    let log = log_of([json(1)]);
    let mut store = MockStore::new();
    let not_set_up = || Error::NotSetUp { dependency: "store", reason: "run the migrations".into(), source: None };
    store.expect_store().times(30).returning(move |_| Err(not_set_up()));
    store.expect_store().returning(|_| Ok(BatchOutcome { new: 1, ..BatchOutcome::default() }));
    let ingestor = Ingestor::new(Arc::new(store), Arc::new(MemoryDeadLetters::new()));
    let run = async { ingestor.run(&mut log.source("group"), CancellationToken::new()).await };
    tokio::time::timeout(HOUR, run).await.expect("a run within an hour").expect("the end");
    assert_eq!(ingestor.stats().snapshot().new, 1);
}

#[tokio::test]
async fn duplicates_and_conflicts_are_counted_apart_within_and_across_batches() {
    let changed = json(1).replace("user-1", "user-2");
    let log = log_of([json(1), json(1), changed.clone(), json(2), json(1), changed]);
    let events = Arc::new(MemoryEventStore::new());
    let ingestor = Ingestor::new(events.clone(), Arc::new(MemoryDeadLetters::new())).with_config(config(4));
    ingestor.run(&mut log.source("group"), CancellationToken::new()).await.expect("the end");
    let stats = ingestor.stats().snapshot();
    assert_eq!((stats.new, stats.duplicates, stats.conflicts, stats.batches), (2, 2, 2, 2));
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn a_combined_ingestor_counts_each_event_that_it_stores() {
    let values = ["".to_owned(), json(1), "[]".to_owned(), json(1), json(1).replace("60", "61"), json(2)];
    let log = log_of(values);
    let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
    let dead_letters = Arc::new(MemoryDeadLetters::new());
    let store = Arc::new(MemoryCombinedStore::of(events.clone(), totals.clone()));
    let ingestor = Ingestor::combined(store, dead_letters.clone());
    ingestor.run(&mut log.source("group"), CancellationToken::new()).await.expect("the end");
    assert_eq!((events.len(), dead_letters.sent().len()), (2, 2));
    assert_eq!(totals.days(), events.sum_by_day());
    let sums: Vec<_> = totals.days().into_values().collect();
    assert_eq!((sums[0].count_events, sums[0].sum_duration, sums[0].sum_bytes_up), (2, 120, 3));
    let stats = ingestor.stats().snapshot();
    assert_eq!((stats.new, stats.duplicates, stats.conflicts, stats.invalid), (2, 1, 1, 2));
}

//! The test suite for aggregate stores.

use std::sync::Arc;

use super::totals::{self, everything, row};
use super::{EventTemplate, check, event};
use crate::aggregate::Contribution;
use crate::batch::{Batch, BatchOutcome, SpanCounts};
use crate::event::{Event, EventType};
use crate::granularity::Granularity;
use crate::ports::AggregateStore;
use crate::record::{PartitionId, Span};

/// Tests every behaviour that [`AggregateStore`] promises. `fresh` makes an empty store.
pub async fn aggregate_store<S: AggregateStore + ?Sized + 'static>(fresh: impl AsyncFn() -> Arc<S>) {
    totals::totals(&fresh, add).await;
    each_identity_counts_once(&*fresh().await).await;
    a_repeated_batch_adds_nothing(&*fresh().await).await;
    concurrent_batches_count_each_event_once(fresh().await).await;
}

async fn add<S: AggregateStore + ?Sized>(store: &S, events: Vec<Event>) -> BatchOutcome {
    store.add(&batch(events)).await.expect("added")
}

fn batch(events: impl IntoIterator<Item = Event>) -> Batch<Contribution> {
    Batch::new(events.into_iter().map(|event| Contribution::of(&event)).collect())
}

async fn each_identity_counts_once<S: AggregateStore + ?Sized>(store: &S) {
    let first = event(EventTemplate::default());
    let conflicting = event(EventTemplate { started_at: "2025-12-24T00:00:00Z", ..EventTemplate::default() });
    let other_source = event(EventTemplate { source: "provider-2", ..EventTemplate::default() });
    store.add(&batch([first.clone(), first.clone()])).await.expect("added");
    let outcome = store.add(&batch([conflicting, first, other_source])).await.expect("added");
    assert_eq!(outcome.new, 1);
    assert_eq!(outcome.duplicates + outcome.conflicts.len() as u64, 2);
    let rows = totals::read(store, everything(Granularity::Day)).await;
    check::same_items("each identity counts once", &rows, &[row("2025-10-20", EventType::CallOut, 2, 120, 0, 0)]);
}

async fn a_repeated_batch_adds_nothing<S: AggregateStore + ?Sized>(store: &S) {
    let events = (0..100).map(|id| Contribution::of(&event(EventTemplate { id, ..EventTemplate::default() })));
    let span = Span { partition: PartitionId::new("events", 0), from: 0, to: 100, records: 100, last_timestamp: None };
    let mut batch = Batch::builder(vec![span.clone()]);
    for (offset, contribution) in events.enumerate() {
        batch.push(&span.partition, offset as i64, contribution);
    }
    let batch = batch.build();
    let first = store.add(&batch).await.expect("added");
    assert_eq!((first.new, first.span_counts), (100, vec![SpanCounts { accepted: 100, ..SpanCounts::default() }]));
    let again = store.add(&batch).await.expect("added");
    assert_eq!((again.new, again.duplicates, again.days), (0, 100, Vec::new()));
    assert_eq!(again.span_counts, [SpanCounts { duplicates: 100, ..SpanCounts::default() }]);
    let rows = totals::read(store, everything(Granularity::Month)).await;
    check::same_items("a repeated batch", &rows, &[row("2025-10-01", EventType::CallOut, 100, 6_000, 0, 0)]);
}

async fn concurrent_batches_count_each_event_once<S: AggregateStore + ?Sized + 'static>(store: Arc<S>) {
    let writers: Vec<_> = (0..8_u128)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..5 {
                    let events = (0..200_u128)
                        .filter(|id| (id + writer) % 4 != 0)
                        .map(|id| event(EventTemplate { id: round * 1_000 + id, ..EventTemplate::default() }));
                    store.add(&batch(events)).await.expect("added");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("joined");
    }
    let rows = totals::read(&*store, everything(Granularity::Day)).await;
    check::same_items("concurrent batches", &rows, &[row("2025-10-20", EventType::CallOut, 1_000, 60_000, 0, 0)]);
}

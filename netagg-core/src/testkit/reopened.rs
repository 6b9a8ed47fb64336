//! The test suites for the durability and the progress of stores after they are opened again.

use std::ops::Range;
use std::sync::Arc;

use super::{EventTemplate, event};
use crate::aggregate::Contribution;
use crate::batch::{Batch, BatchOutcome, Identified};
use crate::event::{Event, IdentifiedEvent};
use crate::granularity::Granularity;
use crate::ports::{AggregateStore, EventStore, TimelineFilter, TotalsQuery};
use crate::record::{PartitionId, Span};
use crate::time::Timestamp;

/// Tests the durability that [`EventStore`] promises. Each call of `open` opens the same data, like a restarted process or a
/// second process. The data are empty at first. `done` returns the offsets of a partition that the store has recorded as
/// processed: ranges in ascending order, with adjacent ranges joined.
pub async fn event_store_reopened<S: EventStore + ?Sized>(
    open: impl AsyncFn() -> Arc<S>,
    done: impl AsyncFn(&PartitionId) -> Vec<Range<i64>>,
) {
    let store = async |batch| open().await.store(&batch).await.expect("stored");
    batches_are_kept_with_their_spans(IdentifiedEvent::from, store, done).await;
    let fields = event(EventTemplate::default()).into_fields();
    let (user_id, from, to) = (fields.user_id, Timestamp::MIN, Timestamp::MAX);
    let filter = TimelineFilter { user_id, from, to, event_type: None };
    assert_eq!(open().await.count(&filter).await.expect("a count"), 5, "events in the reopened store");
}

/// Tests the durability that [`AggregateStore`] promises. The parameters have the same meaning as in [`event_store_reopened`].
pub async fn aggregate_store_reopened<S: AggregateStore + ?Sized>(
    open: impl AsyncFn() -> Arc<S>,
    done: impl AsyncFn(&PartitionId) -> Vec<Range<i64>>,
) {
    let add = async |batch| open().await.add(&batch).await.expect("added");
    batches_are_kept_with_their_spans(|event| Contribution::of(&event), add, done).await;
    let day = event(EventTemplate::default()).day();
    let query = TotalsQuery { granularity: Granularity::Day, from: day, to: day, event_type: None };
    let rows = open().await.totals(&query).await.expect("totals");
    let counted: u64 = rows.iter().map(|row| row.totals.count_events).sum();
    assert_eq!(counted, 5, "events in the totals of the reopened store");
}

/// Opens the store again for each batch, writes the batch, and checks the offsets.
async fn batches_are_kept_with_their_spans<T: Identified>(
    item: impl Fn(Event) -> T,
    write: impl AsyncFn(Batch<T>) -> BatchOutcome,
    done: impl AsyncFn(&PartitionId) -> Vec<Range<i64>>,
) {
    let partition = PartitionId::new("events.reopened", 3);
    let other = PartitionId::new("events.reopened", 4);
    // `ids` has the id of the event at each offset. Without ids, the offsets hold no record.
    let batch = |offsets: Range<i64>, ids: &[u128]| {
        let records = ids.len() as u64;
        let span =
            Span { partition: partition.clone(), from: offsets.start, to: offsets.end, records, last_timestamp: None };
        let mut batch = Batch::builder(vec![span]);
        for (offset, &id) in offsets.zip(ids) {
            batch.push(&partition, offset, item(event(EventTemplate { id, ..EventTemplate::default() })));
        }
        batch.build()
    };
    let mut written = Vec::new();
    for (offsets, ids, expected) in [
        (0..3, &[1, 2, 3][..], &[(0, 3)][..]),
        (7..9, &[4, 5], &[(0, 3), (7, 9)]),    // batches finish in any order
        (0..3, &[1, 2, 3], &[(0, 3), (7, 9)]), // delivered again
        (3..5, &[], &[(0, 5), (7, 9)]),        // no record
        (5..7, &[1, 2], &[(0, 9)]),            // duplicates
    ] {
        let name = format!("offsets {offsets:?}");
        let outcome = write(batch(offsets, ids)).await;
        written.push((outcome.new, outcome.duplicates));
        let expected: Vec<_> = expected.iter().map(|&(from, to)| from..to).collect();
        assert_eq!(done(&partition).await, expected, "processed offsets after {name}");
    }
    assert_eq!(written, [(3, 0), (2, 0), (0, 3), (0, 0), (0, 2)], "(new, duplicates) of the reopened stores");
    assert_eq!(done(&other).await, [], "processed offsets of another partition");
}

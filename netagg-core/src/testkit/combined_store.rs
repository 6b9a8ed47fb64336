//! The test suite for stores that keep events and totals together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::totals::{self, data, day, everything, row};
use super::{check, event_store};
use crate::aggregate::Totals;
use crate::batch::{Batch, BatchOutcome};
use crate::event::{Event, EventType, IdentifiedEvent};
use crate::granularity::Granularity;
use crate::ports::{CombinedStore, SumsQuery};
use crate::time::Timestamp;

/// Tests every behaviour that [`CombinedStore`] and [`EventStore`](crate::ports::EventStore) promise. `fresh` makes an empty
/// store.
pub async fn combined_store<S: CombinedStore + ?Sized + 'static>(fresh: impl AsyncFn() -> Arc<S>) {
    event_store(&fresh).await;
    totals::totals(&fresh, async |combined, events| store(combined, events).await).await;
    repeated_and_conflicting_events_add_nothing(&*fresh().await).await;
    readers_see_events_and_totals_at_once(fresh().await).await;
}

async fn store<S: CombinedStore + ?Sized>(store: &S, events: impl IntoIterator<Item = Event>) -> BatchOutcome {
    let batch = Batch::new(events.into_iter().map(IdentifiedEvent::from).collect());
    store.store(&batch).await.expect("stored")
}

async fn repeated_and_conflicting_events_add_nothing<S: CombinedStore + ?Sized>(combined: &S) {
    let first = data(1, "2025-10-20T12:00:00Z", 1);
    let conflicting = data(1, "2025-11-02T12:00:00Z", 50);
    let other = data(2, "2025-10-20T13:00:00Z", 3);
    // Of the copies in one batch, the first copy counts.
    let outcome = store(combined, [first.clone(), conflicting.clone(), first.clone()]).await;
    assert_eq!((outcome.new, outcome.duplicates, outcome.conflicts.len()), (1, 1, 1));
    assert_eq!(outcome.days, [day("2025-10-20")], "a conflict changes no total");
    let outcome = store(combined, [conflicting.clone(), other]).await;
    assert_eq!((outcome.new, outcome.duplicates, outcome.conflicts.len()), (1, 0, 1));
    assert_eq!(outcome.days, [day("2025-10-20")]);
    let outcome = store(combined, [conflicting, first]).await;
    assert_eq!((outcome.new, outcome.days), (0, Vec::new()));
    let rows = totals::read(combined, everything(Granularity::Day)).await;
    check::same_items("the first copies", &rows, &[row("2025-10-20", EventType::Data, 2, 0, 4, 8)]);
}

/// While several writers store overlapping batches, a reader reads the totals, then the sums over the events, then the totals
/// again. The sums must lie between the two reads of the totals.
async fn readers_see_events_and_totals_at_once<S: CombinedStore + ?Sized + 'static>(combined: Arc<S>) {
    const EVENTS: u64 = 1_000;
    let writers: Vec<_> = (0..4_u128)
        .map(|writer| {
            let combined = combined.clone();
            tokio::spawn(async move {
                for round in 0..10_u128 {
                    let ids = (0..100_u128).filter(|id| (id + writer) % 4 != 0).map(|id| round * 100 + id);
                    store(&*combined, ids.map(|id| data(id, "2025-10-20T12:00:00Z", 1))).await;
                }
            })
        })
        .collect();
    let is_done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (combined, is_done) = (combined.clone(), is_done.clone());
        async move {
            loop {
                let last = is_done.load(Ordering::Relaxed);
                let before = counted(&*combined).await;
                let stored = stored(&*combined).await;
                let after = counted(&*combined).await;
                assert!(before <= stored, "the totals had {before} events while only {stored} events were stored");
                assert!(stored <= after, "{stored} events were stored, but the totals had only {after} events later");
                if last {
                    return after;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for writer in writers {
        writer.await.expect("joined");
    }
    is_done.store(true, Ordering::Relaxed);
    assert_eq!(reader.await.expect("joined"), EVENTS, "each event counts once");
    let sums: BTreeMap<_, _> = totals::read(&*combined, everything(Granularity::Day))
        .await
        .into_iter()
        .map(|row| (row.date, row.totals))
        .collect();
    let bytes = u128::from(EVENTS);
    let expected = Totals { count_events: EVENTS, sum_duration: 0, sum_bytes_up: bytes, sum_bytes_down: 2 * bytes };
    assert_eq!(sums, BTreeMap::from([(day("2025-10-20"), expected)]));
}

async fn counted<S: CombinedStore + ?Sized>(combined: &S) -> u64 {
    totals::read(combined, everything(Granularity::Day)).await.iter().map(|row| row.totals.count_events).sum()
}

async fn stored<S: CombinedStore + ?Sized>(combined: &S) -> u64 {
    let bounds = ["2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"];
    let bounds: Vec<Timestamp> = bounds.iter().map(|bound| bound.parse().expect("a time")).collect();
    let sums = combined.sums(&SumsQuery { user_id: None, bounds, event_type: None }).await.expect("sums");
    sums.iter().map(|period| period.totals.count_events).sum()
}

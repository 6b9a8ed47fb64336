//! The behaviours of a store that keeps events and totals together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{EventTemplate, check, event, event_store};
use crate::MAX_BYTES;
use crate::aggregate::{AggregateRow, Totals};
use crate::batch::{Batch, BatchOutcome};
use crate::event::{Event, EventType, IdentifiedEvent};
use crate::granularity::Granularity;
use crate::ports::{CombinedStore, SumsQuery, TotalsQuery};
use crate::time::{Day, Timestamp};

/// Every behaviour that [`CombinedStore`] promises, and those of an [`EventStore`](crate::ports::EventStore). `fresh` makes an
/// empty store.
pub async fn combined_store<S: CombinedStore + ?Sized + 'static>(fresh: impl AsyncFn() -> Arc<S>) {
    event_store(&fresh).await;
    totals_are_the_sums_over_the_stored_events(&*fresh().await).await;
    repeated_and_conflicting_events_add_nothing(&*fresh().await).await;
    byte_sums_beyond_64_bits_are_exact(&*fresh().await).await;
    readers_see_events_and_totals_at_once(fresh().await).await;
}

async fn store<S: CombinedStore + ?Sized>(store: &S, events: impl IntoIterator<Item = Event>) -> BatchOutcome {
    let batch = Batch::new(events.into_iter().map(IdentifiedEvent::from).collect());
    store.store(&batch).await.expect("stored")
}

fn day(text: &str) -> Day {
    text.parse().expect("a day")
}

async fn totals<S: CombinedStore + ?Sized>(store: &S, granularity: Granularity) -> Vec<AggregateRow> {
    let query = TotalsQuery { granularity, from: day("2020-01-01"), to: day("2029-12-31"), event_type: None };
    store.totals(&query).await.expect("totals")
}

fn row(date: &str, event_type: EventType, count_events: u64, sum_duration: u64, bytes: u128) -> AggregateRow {
    let totals = Totals { count_events, sum_duration, sum_bytes_up: bytes, sum_bytes_down: 2 * bytes };
    AggregateRow { date: day(date), event_type, totals }
}

/// A call or a data session.
fn usage(id: u128, started_at: &'static str, bytes: Option<u64>) -> Event {
    event(match bytes {
        Some(bytes_up) => EventTemplate {
            id,
            started_at,
            event_type: EventType::Data,
            duration_sec: None,
            bytes_up,
            bytes_down: 2 * bytes_up,
            ..EventTemplate::default()
        },
        None => EventTemplate { id, started_at, ..EventTemplate::default() },
    })
}

async fn totals_are_the_sums_over_the_stored_events<S: CombinedStore + ?Sized>(combined: &S) {
    let outcome = store(
        combined,
        [
            usage(1, "2025-10-31T23:59:59.999999Z", Some(1)),
            usage(2, "2025-11-01T00:00:00Z", Some(10)),
            usage(3, "2025-11-01T02:00:00+03:00", Some(100)), // October in UTC
            usage(4, "2025-10-31T00:00:00Z", None),
        ],
    )
    .await;
    assert_eq!(outcome.days, [day("2025-10-31"), day("2025-11-01")], "the days whose totals changed");
    let outcome =
        store(combined, [usage(5, "2025-11-30T12:00:00Z", Some(1_000)), usage(6, "2025-11-01T05:00:00Z", None)]).await;
    assert_eq!(outcome.days, [day("2025-11-01"), day("2025-11-30")], "the days whose totals changed");
    let by_day = [
        row("2025-10-31", EventType::CallOut, 1, 60, 0),
        row("2025-10-31", EventType::Data, 2, 0, 101),
        row("2025-11-01", EventType::CallOut, 1, 60, 0),
        row("2025-11-01", EventType::Data, 1, 0, 10),
        row("2025-11-30", EventType::Data, 1, 0, 1_000),
    ];
    check::same_items("totals by day", &totals(combined, Granularity::Day).await, &by_day);
    let by_month = [
        row("2025-10-01", EventType::CallOut, 1, 60, 0),
        row("2025-10-01", EventType::Data, 2, 0, 101),
        row("2025-11-01", EventType::CallOut, 1, 60, 0),
        row("2025-11-01", EventType::Data, 2, 0, 1_010),
    ];
    check::same_items("totals by month", &totals(combined, Granularity::Month).await, &by_month);
}

async fn repeated_and_conflicting_events_add_nothing<S: CombinedStore + ?Sized>(combined: &S) {
    let first = usage(1, "2025-10-20T12:00:00Z", Some(1));
    let conflicting = usage(1, "2025-11-02T12:00:00Z", Some(50));
    let other = usage(2, "2025-10-20T13:00:00Z", Some(3));
    // In one batch, the first copy counts.
    let outcome = store(combined, [first.clone(), conflicting.clone(), first.clone()]).await;
    assert_eq!((outcome.new, outcome.duplicates, outcome.conflicts.len()), (1, 1, 1));
    assert_eq!(outcome.days, [day("2025-10-20")], "a conflict changes no totals");
    let outcome = store(combined, [conflicting.clone(), other]).await;
    assert_eq!((outcome.new, outcome.duplicates, outcome.conflicts.len()), (1, 0, 1));
    assert_eq!(outcome.days, [day("2025-10-20")]);
    let outcome = store(combined, [conflicting, first]).await;
    assert_eq!((outcome.new, outcome.days), (0, Vec::new()));
    let rows = totals(combined, Granularity::Day).await;
    check::same_items("the first copies", &rows, &[row("2025-10-20", EventType::Data, 2, 0, 4)]);
}

async fn byte_sums_beyond_64_bits_are_exact<S: CombinedStore + ?Sized>(combined: &S) {
    let largest = |id| {
        let template =
            EventTemplate { id, event_type: EventType::Data, duration_sec: None, ..EventTemplate::default() };
        event(EventTemplate { bytes_up: MAX_BYTES, bytes_down: MAX_BYTES, ..template })
    };
    store(combined, [largest(1), largest(2)]).await;
    store(combined, [largest(3)]).await;
    let bytes = 3 * u128::from(MAX_BYTES);
    let rows = totals(combined, Granularity::Month).await;
    let sums: Vec<_> = rows.iter().map(|row| (row.totals.sum_bytes_up, row.totals.sum_bytes_down)).collect();
    assert_eq!(sums, [(bytes, bytes)]);
}

/// Readers compare totals, sums over events and totals again, while several writers store overlapping batches.
async fn readers_see_events_and_totals_at_once<S: CombinedStore + ?Sized + 'static>(combined: Arc<S>) {
    const EVENTS: u64 = 1_000;
    let writers: Vec<_> = (0..4_u128)
        .map(|writer| {
            let combined = combined.clone();
            tokio::spawn(async move {
                for round in 0..10_u128 {
                    let ids = (0..100_u128).filter(|id| (id + writer) % 4 != 0).map(|id| round * 100 + id);
                    store(&*combined, ids.map(|id| usage(id, "2025-10-20T12:00:00Z", Some(1)))).await;
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
                assert!(before <= stored, "totals had {before} events before {stored} events were stored");
                assert!(stored <= after, "{stored} events were stored before totals had {after}");
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
    let sums: BTreeMap<_, _> =
        totals(&*combined, Granularity::Day).await.into_iter().map(|row| (row.date, row.totals)).collect();
    let bytes = u128::from(EVENTS);
    let expected = Totals { count_events: EVENTS, sum_duration: 0, sum_bytes_up: bytes, sum_bytes_down: 2 * bytes };
    assert_eq!(sums, BTreeMap::from([(day("2025-10-20"), expected)]));
}

async fn counted<S: CombinedStore + ?Sized>(combined: &S) -> u64 {
    totals(combined, Granularity::Day).await.iter().map(|row| row.totals.count_events).sum()
}

async fn stored<S: CombinedStore + ?Sized>(combined: &S) -> u64 {
    let bounds = ["2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"];
    let bounds: Vec<Timestamp> = bounds.iter().map(|bound| bound.parse().expect("a time")).collect();
    let sums = combined.sums(&SumsQuery { user_id: None, bounds, event_type: None }).await.expect("sums");
    sums.iter().map(|period| period.totals.count_events).sum()
}

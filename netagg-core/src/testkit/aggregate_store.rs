//! The behaviours of an aggregate store.

use std::sync::Arc;

use super::{EventTemplate, check, event};
use crate::aggregate::{AggregateRow, Contribution, Totals};
use crate::batch::{Batch, Tally};
use crate::event::{Event, EventType};
use crate::granularity::Granularity;
use crate::ports::{AggregateStore, TotalsQuery};
use crate::record::{PartitionId, Span};
use crate::time::Day;
use crate::{MAX_BYTES, MAX_DURATION_SEC};

/// Every behaviour that [`AggregateStore`] promises. `fresh` makes an empty store.
pub async fn aggregate_store<S: AggregateStore + ?Sized + 'static>(fresh: impl AsyncFn() -> Arc<S>) {
    totals_are_sums_by_day_month_and_type(&*fresh().await).await;
    each_identity_counts_once(&*fresh().await).await;
    a_repeated_batch_adds_nothing(&*fresh().await).await;
    sums_beyond_64_bits_are_exact(&*fresh().await).await;
    totals_are_filtered_by_range_and_type(&*fresh().await).await;
    concurrent_batches_count_each_event_once(fresh().await).await;
}

fn batch(events: impl IntoIterator<Item = Event>) -> Batch<Contribution> {
    Batch::new(events.into_iter().map(|event| Contribution::of(&event)).collect())
}

fn day(text: &str) -> Day {
    text.parse().expect("a day")
}

fn everything(granularity: Granularity) -> TotalsQuery {
    TotalsQuery { granularity, from: day("2020-01-01"), to: day("2029-12-31"), event_type: None }
}

fn row(date: &str, event_type: EventType, count_events: u64, sum_duration: u64, up: u128, down: u128) -> AggregateRow {
    let totals = Totals { count_events, sum_duration, sum_bytes_up: up, sum_bytes_down: down };
    AggregateRow { date: day(date), event_type, totals }
}

async fn totals<S: AggregateStore + ?Sized>(store: &S, query: TotalsQuery) -> Vec<AggregateRow> {
    store.totals(&query).await.expect("totals")
}

async fn totals_are_sums_by_day_month_and_type<S: AggregateStore + ?Sized>(store: &S) {
    let data = |id, started_at, bytes_up| {
        event(EventTemplate {
            id,
            started_at,
            event_type: EventType::Data,
            duration_sec: None,
            bytes_up,
            bytes_down: 2 * bytes_up,
            ..EventTemplate::default()
        })
    };
    let outcome = store
        .add(&batch([
            data(1, "2025-10-31T23:59:59.999999Z", 1),
            data(2, "2025-11-01T00:00:00Z", 10),
            data(3, "2025-11-01T02:00:00+03:00", 100), // October in UTC
            event(EventTemplate { id: 4, started_at: "2025-10-31T00:00:00Z", ..EventTemplate::default() }),
        ]))
        .await
        .expect("added");
    assert_eq!((outcome.new, outcome.duplicates), (4, 0));
    assert_eq!(outcome.days, [day("2025-10-31"), day("2025-11-01")]);
    // Another batch adds to the same rows.
    store.add(&batch([data(5, "2025-11-30T12:00:00Z", 1_000)])).await.expect("added");
    check::same_items(
        "totals by day",
        &totals(store, everything(Granularity::Day)).await,
        &[
            row("2025-10-31", EventType::CallOut, 1, 60, 0, 0),
            row("2025-10-31", EventType::Data, 2, 0, 101, 202),
            row("2025-11-01", EventType::Data, 1, 0, 10, 20),
            row("2025-11-30", EventType::Data, 1, 0, 1_000, 2_000),
        ],
    );
    check::same_items(
        "totals by month",
        &totals(store, everything(Granularity::Month)).await,
        &[
            row("2025-10-01", EventType::CallOut, 1, 60, 0, 0),
            row("2025-10-01", EventType::Data, 2, 0, 101, 202),
            row("2025-11-01", EventType::Data, 2, 0, 1_010, 2_020),
        ],
    );
}

async fn each_identity_counts_once<S: AggregateStore + ?Sized>(store: &S) {
    let first = event(EventTemplate::default());
    let conflicting = event(EventTemplate { started_at: "2025-12-24T00:00:00Z", ..EventTemplate::default() });
    let other_source = event(EventTemplate { source: "provider-2", ..EventTemplate::default() });
    store.add(&batch([first.clone(), first.clone()])).await.expect("added");
    let outcome = store.add(&batch([conflicting, first, other_source])).await.expect("added");
    assert_eq!(outcome.new, 1);
    assert_eq!(outcome.duplicates + outcome.conflicts.len() as u64, 2);
    let rows = totals(store, everything(Granularity::Day)).await;
    check::same_items("each identity once", &rows, &[row("2025-10-20", EventType::CallOut, 2, 120, 0, 0)]);
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
    assert_eq!((first.new, first.tallies), (100, vec![Tally { accepted: 100, ..Tally::default() }]));
    let again = store.add(&batch).await.expect("added");
    assert_eq!((again.new, again.duplicates, again.days), (0, 100, Vec::new()));
    assert_eq!(again.tallies, [Tally { duplicates: 100, ..Tally::default() }]);
    let rows = totals(store, everything(Granularity::Month)).await;
    check::same_items("a repeated batch", &rows, &[row("2025-10-01", EventType::CallOut, 100, 6_000, 0, 0)]);
}

async fn sums_beyond_64_bits_are_exact<S: AggregateStore + ?Sized>(store: &S) {
    let largest = |id| {
        event(EventTemplate {
            id,
            duration_sec: Some(MAX_DURATION_SEC),
            bytes_up: MAX_BYTES,
            bytes_down: MAX_BYTES,
            ..EventTemplate::default()
        })
    };
    store.add(&batch([largest(1), largest(2)])).await.expect("added");
    store.add(&batch([largest(3)])).await.expect("added");
    let bytes = 3 * u128::from(MAX_BYTES);
    for granularity in [Granularity::Day, Granularity::Month] {
        let rows = totals(store, everything(granularity)).await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].totals.sum_duration, 3 * u64::from(MAX_DURATION_SEC));
        assert_eq!((rows[0].totals.sum_bytes_up, rows[0].totals.sum_bytes_down), (bytes, bytes));
    }
}

async fn totals_are_filtered_by_range_and_type<S: AggregateStore + ?Sized>(store: &S) {
    let at =
        |id, started_at, event_type| event(EventTemplate { id, started_at, event_type, ..EventTemplate::default() });
    store
        .add(&batch([
            at(1, "2025-09-30T00:00:00Z", EventType::Data),
            at(2, "2025-10-01T00:00:00Z", EventType::CallIn),
            at(3, "2025-10-01T00:00:00Z", EventType::Data),
            at(4, "2025-10-02T00:00:00Z", EventType::SmsSent),
        ]))
        .await
        .expect("added");
    let dates = async |granularity, from, to, event_type| {
        let query = TotalsQuery { granularity, from: day(from), to: day(to), event_type };
        let rows = totals(store, query).await;
        rows.into_iter().map(|row| (row.date.to_string(), row.event_type)).collect::<Vec<_>>()
    };
    let expected = |rows: &[(&str, EventType)]| {
        rows.iter().map(|(date, event_type)| ((*date).to_owned(), *event_type)).collect::<Vec<_>>()
    };
    assert_eq!(
        dates(Granularity::Day, "2025-10-01", "2025-10-01", None).await,
        expected(&[("2025-10-01", EventType::CallIn), ("2025-10-01", EventType::Data)]),
        "both ends count"
    );
    assert_eq!(
        dates(Granularity::Day, "2025-01-01", "2025-12-31", Some(EventType::Data)).await,
        expected(&[("2025-09-30", EventType::Data), ("2025-10-01", EventType::Data)])
    );
    assert_eq!(
        dates(Granularity::Month, "2025-10-31", "2025-10-02", None).await,
        expected(&[
            ("2025-10-01", EventType::CallIn),
            ("2025-10-01", EventType::SmsSent),
            ("2025-10-01", EventType::Data)
        ]),
        "the day of a month doesn't matter"
    );
    assert_eq!(dates(Granularity::Day, "2024-01-01", "2024-12-31", None).await, expected(&[]));
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
    let rows = totals(&*store, everything(Granularity::Day)).await;
    check::same_items("concurrent batches", &rows, &[row("2025-10-20", EventType::CallOut, 1_000, 60_000, 0, 0)]);
}

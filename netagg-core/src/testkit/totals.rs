//! The tests of totals that the suites of all stores with totals share.

use std::sync::Arc;

use super::{EventTemplate, check, event};
use crate::aggregate::{AggregateRow, Totals};
use crate::batch::BatchOutcome;
use crate::event::{Event, EventType};
use crate::granularity::Granularity;
use crate::ports::{TotalsQuery, TotalsReader};
use crate::time::Day;
use crate::{MAX_BYTES, MAX_DURATION_SEC};

pub(super) fn day(text: &str) -> Day {
    text.parse().expect("a day")
}

pub(super) fn everything(granularity: Granularity) -> TotalsQuery {
    TotalsQuery { granularity, from: day("2020-01-01"), to: day("2029-12-31"), event_type: None }
}

pub(super) fn row(
    date: &str,
    event_type: EventType,
    count_events: u64,
    sum_duration: u64,
    up: u128,
    down: u128,
) -> AggregateRow {
    let totals = Totals { count_events, sum_duration, sum_bytes_up: up, sum_bytes_down: down };
    AggregateRow { date: day(date), event_type, totals }
}

pub(super) async fn read<S: TotalsReader + ?Sized>(store: &S, query: TotalsQuery) -> Vec<AggregateRow> {
    store.totals(&query).await.expect("totals")
}

/// Tests the behaviours that every store of totals promises to its readers. `fresh` makes an empty store, and `write` writes
/// events into it.
pub(super) async fn totals<S: TotalsReader + ?Sized>(
    fresh: impl AsyncFn() -> Arc<S>,
    write: impl AsyncFn(&S, Vec<Event>) -> BatchOutcome,
) {
    totals_are_sums_by_day_month_and_type(&*fresh().await, &write).await;
    totals_are_exact_beyond_64_bits(&*fresh().await, &write).await;
    totals_are_filtered_by_range_and_type(&*fresh().await, &write).await;
}

/// A data session that receives twice as many bytes as it sends.
pub(super) fn data(id: u128, started_at: &str, bytes_up: u64) -> Event {
    event(EventTemplate {
        id,
        started_at,
        event_type: EventType::Data,
        duration_sec: None,
        bytes_up,
        bytes_down: 2 * bytes_up,
        ..EventTemplate::default()
    })
}

async fn totals_are_sums_by_day_month_and_type<S: TotalsReader + ?Sized>(
    store: &S,
    write: &impl AsyncFn(&S, Vec<Event>) -> BatchOutcome,
) {
    let outcome = write(
        store,
        vec![
            data(1, "2025-10-31T23:59:59.999999Z", 1),
            data(2, "2025-11-01T00:00:00Z", 10),
            data(3, "2025-11-01T02:00:00+03:00", 100), // October in UTC
            event(EventTemplate { id: 4, started_at: "2025-10-31T00:00:00Z", ..EventTemplate::default() }),
        ],
    )
    .await;
    assert_eq!((outcome.new, outcome.duplicates), (4, 0));
    assert_eq!(outcome.days, [day("2025-10-31"), day("2025-11-01")]);
    // Another batch adds to the same rows.
    let call = event(EventTemplate { id: 6, started_at: "2025-11-01T05:00:00Z", ..EventTemplate::default() });
    let outcome = write(store, vec![data(5, "2025-11-30T12:00:00Z", 1_000), call]).await;
    assert_eq!(outcome.days, [day("2025-11-01"), day("2025-11-30")], "the days whose totals changed");
    check::same_items(
        "totals by day",
        &read(store, everything(Granularity::Day)).await,
        &[
            row("2025-10-31", EventType::CallOut, 1, 60, 0, 0),
            row("2025-10-31", EventType::Data, 2, 0, 101, 202),
            row("2025-11-01", EventType::CallOut, 1, 60, 0, 0),
            row("2025-11-01", EventType::Data, 1, 0, 10, 20),
            row("2025-11-30", EventType::Data, 1, 0, 1_000, 2_000),
        ],
    );
    check::same_items(
        "totals by month",
        &read(store, everything(Granularity::Month)).await,
        &[
            row("2025-10-01", EventType::CallOut, 1, 60, 0, 0),
            row("2025-10-01", EventType::Data, 2, 0, 101, 202),
            row("2025-11-01", EventType::CallOut, 1, 60, 0, 0),
            row("2025-11-01", EventType::Data, 2, 0, 1_010, 2_020),
        ],
    );
}

async fn totals_are_exact_beyond_64_bits<S: TotalsReader + ?Sized>(
    store: &S,
    write: &impl AsyncFn(&S, Vec<Event>) -> BatchOutcome,
) {
    let largest = |id| {
        event(EventTemplate {
            id,
            duration_sec: Some(MAX_DURATION_SEC),
            bytes_up: MAX_BYTES,
            bytes_down: MAX_BYTES,
            ..EventTemplate::default()
        })
    };
    write(store, vec![largest(1), largest(2)]).await;
    write(store, vec![largest(3)]).await;
    let bytes = 3 * u128::from(MAX_BYTES);
    for granularity in [Granularity::Day, Granularity::Month] {
        let rows = read(store, everything(granularity)).await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].totals.sum_duration, 3 * u64::from(MAX_DURATION_SEC));
        assert_eq!((rows[0].totals.sum_bytes_up, rows[0].totals.sum_bytes_down), (bytes, bytes));
    }
}

async fn totals_are_filtered_by_range_and_type<S: TotalsReader + ?Sized>(
    store: &S,
    write: &impl AsyncFn(&S, Vec<Event>) -> BatchOutcome,
) {
    let at =
        |id, started_at, event_type| event(EventTemplate { id, started_at, event_type, ..EventTemplate::default() });
    write(
        store,
        vec![
            at(1, "2025-09-30T00:00:00Z", EventType::Data),
            at(2, "2025-10-01T00:00:00Z", EventType::CallIn),
            at(3, "2025-10-01T00:00:00Z", EventType::Data),
            at(4, "2025-10-02T00:00:00Z", EventType::SmsSent),
        ],
    )
    .await;
    let dates = async |granularity, from, to, event_type| {
        let query = TotalsQuery { granularity, from: day(from), to: day(to), event_type };
        let rows = read(store, query).await;
        rows.into_iter().map(|row| (row.date.to_string(), row.event_type)).collect::<Vec<_>>()
    };
    let expected = |rows: &[(&str, EventType)]| {
        rows.iter().map(|(date, event_type)| ((*date).to_owned(), *event_type)).collect::<Vec<_>>()
    };
    assert_eq!(
        dates(Granularity::Day, "2025-10-01", "2025-10-01", None).await,
        expected(&[("2025-10-01", EventType::CallIn), ("2025-10-01", EventType::Data)]),
        "the range includes both days"
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
        "only the months of the range count"
    );
    assert_eq!(dates(Granularity::Day, "2024-01-01", "2024-12-31", None).await, expected(&[]));
}

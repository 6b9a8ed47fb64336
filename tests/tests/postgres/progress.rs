//! The durable progress of a service, as ranges of offsets.

use std::sync::Arc;

use futures::future::join_all;
use netagg_core::ports::{AggregateStore, EventStore};
use netagg_core::{PartitionId, Span};
use netagg_pg::{PgAggregateStore, PgEventStore};

use super::{Fresh, at, contributions_of, events_of};

fn span(number: i32, from: i64, to: i64, last_timestamp: Option<&str>) -> Span {
    let last_timestamp = last_timestamp.map(|at| at.parse().unwrap());
    Span {
        partition: PartitionId::new("events.telecom", number),
        from,
        to,
        records: (to - from) as u64,
        last_timestamp,
    }
}

const PROGRESS: &str =
    "SELECT string_agg(concat_ws(' ', service, topic, partition, done, last_timestamp AT TIME ZONE 'UTC'), '; '
                        ORDER BY service, topic, partition) FROM consumer_progress";

#[tokio::test]
async fn spans_are_merged_in_any_order_and_separately_for_each_service() {
    let fresh = Fresh::migrated().await;
    let store = PgEventStore::new(fresh.postgres.clone());
    let later = Some("2025-10-20T12:00:02Z");
    for spans in [
        vec![span(1, 10, 20, later), span(0, 0, 5, None)],
        vec![span(0, 7, 9, Some("2025-10-20T12:00:01Z")), span(0, 5, 7, None), span(0, 9, 9, None)],
        vec![span(1, 0, 10, Some("2025-10-20T12:00:00Z")), span(1, 30, 40, None)],
        vec![span(1, 0, 10, None)], // This span is delivered again.
        vec![],
    ] {
        store.store(&events_of([], spans)).await.unwrap();
    }
    assert_eq!(
        fresh.value::<String>(PROGRESS).await,
        "ingestor events.telecom 0 {[0,9)} 2025-10-20 12:00:01; \
         ingestor events.telecom 1 {[0,20),[30,40)} 2025-10-20 12:00:02"
    );
    let totals = PgAggregateStore::new(fresh.postgres.clone());
    totals.add(&contributions_of([at(1, "2025-10-20T00:00:00Z")], vec![span(0, 0, 3, None)])).await.unwrap();
    assert!(fresh.value::<String>(PROGRESS).await.starts_with("aggregator events.telecom 0 {[0,3)}; ingestor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_in_flight_commit_in_any_order() {
    let fresh = Fresh::migrated().await;
    let store = Arc::new(PgEventStore::new(fresh.postgres.clone()));
    let tasks = (0..8_i64).rev().map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let from = round * 80 + task * 10;
                // The partitions are in another order for each task.
                let mut spans: Vec<Span> = (0..4).map(|partition| span(partition, from, from + 10, None)).collect();
                spans.rotate_left((task % 4) as usize);
                let event = at((round * 8 + task) as u128, "2025-10-20T00:00:00Z");
                store.store(&events_of([event], spans)).await.unwrap();
            }
        })
    });
    for joined in join_all(tasks).await {
        joined.unwrap();
    }
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM consumer_progress WHERE done = '{[0,800)}'").await, 4);
}

//! The in-memory adapters pass the suites, and faulty ones do not.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use netagg_core::memory::{MemoryAggregateStore, MemoryEventStore, MemoryLog, MemoryTotalsRepair};
use netagg_core::ports::{EventSource, SourceEvent, TotalsRepair};
use netagg_core::testkit::RepairedStores;
use netagg_core::{Day, Error, OutgoingRecord, testkit};

#[tokio::test]
async fn stores_in_memory_keep_events_totals_and_progress() {
    let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
    testkit::event_store_reopened(async || events.clone(), async |partition| events.done(partition)).await;
    testkit::aggregate_store_reopened(async || totals.clone(), async |partition| totals.done(partition)).await;
}

#[tokio::test]
#[should_panic = "offsets noted as done"]
async fn an_event_store_that_notes_no_spans_is_caught() {
    let events = Arc::new(MemoryEventStore::new());
    testkit::event_store_reopened(async || events.clone(), async |_| Vec::new()).await;
}

#[tokio::test]
#[should_panic = "offsets noted as done"]
async fn an_aggregate_store_that_notes_no_spans_is_caught() {
    let totals = Arc::new(MemoryAggregateStore::new());
    testkit::aggregate_store_reopened(async || totals.clone(), async |_| Vec::new()).await;
}

#[tokio::test]
#[should_panic = "offsets noted as done after offsets 7..9"]
async fn an_event_store_that_loses_its_data_is_caught() {
    let last = Mutex::new(Arc::new(MemoryEventStore::new()));
    let open = async || {
        let fresh = Arc::new(MemoryEventStore::new());
        last.lock().expect("no poison").clone_from(&fresh);
        fresh
    };
    testkit::event_store_reopened(open, async |partition| last.lock().expect("no poison").done(partition)).await;
}

#[tokio::test]
#[should_panic = "offsets noted as done after offsets 7..9"]
async fn an_aggregate_store_that_loses_its_data_is_caught() {
    let last = Mutex::new(Arc::new(MemoryAggregateStore::new()));
    let open = async || {
        let fresh = Arc::new(MemoryAggregateStore::new());
        last.lock().expect("no poison").clone_from(&fresh);
        fresh
    };
    testkit::aggregate_store_reopened(open, async |partition| last.lock().expect("no poison").done(partition)).await;
}

#[tokio::test]
async fn the_repair_in_memory_conforms() {
    testkit::totals_repair(async || {
        let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
        let repair = Arc::new(MemoryTotalsRepair::new(events.clone(), totals.clone()));
        RepairedStores { events, totals, repair }
    })
    .await;
}

/// Finds no dirty day, as if no store marked one.
#[derive(Debug)]
struct NothingDirty;

#[async_trait]
impl TotalsRepair for NothingDirty {
    async fn repair(&self) -> Result<Vec<Day>, Error> {
        Ok(Vec::new())
    }
}

#[tokio::test]
#[should_panic = "the totals are not those of the stored events"]
async fn stores_that_mark_no_days_of_conflicts_are_caught() {
    testkit::totals_repair(async || {
        let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
        RepairedStores { events, totals, repair: Arc::new(NothingDirty) }
    })
    .await;
}

#[tokio::test]
async fn publisher_and_offsets_of_the_log_conform() {
    let log = MemoryLog::new("events", 1);
    testkit::event_publisher(&log, async |count| {
        let (mut source, mut received) = (log.source("group"), Vec::new());
        while received.len() < count {
            if let SourceEvent::Records(records) = source.next().await.expect("records") {
                let outgoing = records.into_iter().map(|record| OutgoingRecord {
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
                received.extend(outgoing);
            }
        }
        received
    })
    .await;
    let log = MemoryLog::new("events", 1);
    let source = Box::new(log.source("group"));
    testkit::group_offsets(&log, ("group", "events"), Arc::new(log.clone()), source).await;
}

//! Tests that the adapters in memory pass the test suites, and that faulty adapters fail them.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use netagg_core::memory::{MemoryAggregateStore, MemoryEventStore, MemoryLog, MemoryTotalsRepair};
use netagg_core::ports::{EventSource, SourceEvent, TotalsRepair};
use netagg_core::testkit::RepairedStores;
use netagg_core::{Day, Error, OutgoingRecord, PartitionId, Position, Record, StreamSource, testkit};

#[tokio::test]
async fn reopened_stores_in_memory_keep_events_totals_and_progress() {
    let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
    testkit::event_store_reopened(async || events.clone(), async |partition| events.done(partition)).await;
    testkit::aggregate_store_reopened(async || totals.clone(), async |partition| totals.done(partition)).await;
}

#[tokio::test]
#[should_panic = "processed offsets after"]
async fn an_event_store_that_records_no_spans_fails() {
    let events = Arc::new(MemoryEventStore::new());
    testkit::event_store_reopened(async || events.clone(), async |_| Vec::new()).await;
}

#[tokio::test]
#[should_panic = "processed offsets after"]
async fn an_aggregate_store_that_records_no_spans_fails() {
    let totals = Arc::new(MemoryAggregateStore::new());
    testkit::aggregate_store_reopened(async || totals.clone(), async |_| Vec::new()).await;
}

#[tokio::test]
#[should_panic = "processed offsets after offsets 7..9"]
async fn an_event_store_that_loses_its_data_fails() {
    let last = Mutex::new(Arc::new(MemoryEventStore::new()));
    let open = async || {
        let fresh = Arc::new(MemoryEventStore::new());
        last.lock().expect("an unpoisoned lock").clone_from(&fresh);
        fresh
    };
    testkit::event_store_reopened(open, async |partition| last.lock().expect("an unpoisoned lock").done(partition))
        .await;
}

#[tokio::test]
#[should_panic = "processed offsets after offsets 7..9"]
async fn an_aggregate_store_that_loses_its_data_fails() {
    let last = Mutex::new(Arc::new(MemoryAggregateStore::new()));
    let open = async || {
        let fresh = Arc::new(MemoryAggregateStore::new());
        last.lock().expect("an unpoisoned lock").clone_from(&fresh);
        fresh
    };
    testkit::aggregate_store_reopened(open, async |partition| last.lock().expect("an unpoisoned lock").done(partition))
        .await;
}

#[tokio::test]
async fn the_repair_in_memory_passes_its_suite() {
    testkit::totals_repair(async || {
        let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
        let repair = Arc::new(MemoryTotalsRepair::new(events.clone(), totals.clone()));
        RepairedStores { events, totals, repair }
    })
    .await;
}

/// A repair that finds no dirty day, as if no store marked a day as dirty.
#[derive(Debug)]
struct NothingDirty;

#[async_trait]
impl TotalsRepair for NothingDirty {
    async fn repair(&self) -> Result<Vec<Day>, Error> {
        Ok(Vec::new())
    }
}

#[tokio::test]
#[should_panic = "the totals differ from the stored events"]
async fn stores_that_mark_no_days_of_conflicts_fail() {
    testkit::totals_repair(async || {
        let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
        RepairedStores { events, totals, repair: Arc::new(NothingDirty) }
    })
    .await;
}

#[tokio::test]
async fn publisher_and_offsets_of_the_log_pass_their_suites() {
    let log = MemoryLog::new("events", 1);
    testkit::event_publisher(&log, async |count| {
        let (mut source, mut received) = (log.source("group"), Vec::new());
        while received.len() < count {
            if let SourceEvent::Records(records) = source.next().await.expect("records") {
                received.extend(records.into_iter().map(OutgoingRecord::from));
            }
        }
        received
    })
    .await;
    let log = MemoryLog::new("events", 1);
    let source = Box::new(log.source("group"));
    testkit::group_offsets(&log, ("group", "events"), Arc::new(log.clone()), source).await;
    let log = MemoryLog::new("events", 1);
    testkit::group_admin(&log, &log, ("group", "events"), Arc::new(log.clone())).await;
}

fn stream_source(values: &[Bytes]) -> StreamSource {
    StreamSource::of_values("values", stream::iter(values.iter().cloned().map(Ok::<_, Error>).collect::<Vec<_>>()))
}

#[tokio::test]
async fn a_source_over_a_stream_passes_its_suite() {
    testkit::plain_source(async |values| move || Box::new(stream_source(&values)) as Box<dyn EventSource>).await;
}

#[tokio::test]
async fn a_log_with_a_single_reader_passes_its_suite() {
    testkit::plain_source(async |values: Vec<Bytes>| {
        let log = MemoryLog::new("events", 1);
        let timestamp = netagg_core::RecordTimestamp::from_millis(1_761_000_000_000);
        for value in values {
            log.append(Record::new(PartitionId::new("events", 0), 0, value).with_timestamp(timestamp));
        }
        log.close();
        move || Box::new(log.source("group")) as Box<dyn EventSource>
    })
    .await;
}

/// A faulty source. It reads a [`StreamSource`], and changes or delays the records.
#[derive(Debug)]
struct Faulty {
    inner: StreamSource,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Waits after it has read records, and loses them if the read is cancelled meanwhile.
    LosesRecordsOfCancelledReads,
    /// Gives each record the same offset.
    SameOffset,
    /// Skips the first 70 records, although they are not committed.
    SkipsRecords,
}

#[async_trait]
impl EventSource for Faulty {
    async fn next(&mut self) -> Result<SourceEvent, Error> {
        let mut event = self.inner.next().await?;
        let SourceEvent::Records(records) = &mut event else { return Ok(event) };
        match self.fault {
            Fault::LosesRecordsOfCancelledReads => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            Fault::SameOffset => records.iter_mut().for_each(|record| record.offset = 0),
            Fault::SkipsRecords => records.retain(|record| record.offset >= 70),
        }
        Ok(event)
    }

    async fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        self.inner.commit(positions).await
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.inner.close().await
    }
}

/// Runs the suite with a source that has this fault.
async fn faulty(fault: Fault) {
    testkit::plain_source(async |values| {
        move || Box::new(Faulty { inner: stream_source(&values), fault }) as Box<dyn EventSource>
    })
    .await;
}

#[tokio::test]
#[should_panic = "values, with cancelled reads"]
async fn a_source_that_loses_records_of_cancelled_reads_fails() {
    faulty(Fault::LosesRecordsOfCancelledReads).await;
}

#[tokio::test]
#[should_panic = "offsets of values/0 do not increase: 0 comes after 0"]
async fn a_source_that_repeats_an_offset_fails() {
    faulty(Fault::SameOffset).await;
}

#[tokio::test]
#[should_panic = "values: found 2430 items, expected 2500; item 0"]
async fn a_source_that_skips_records_fails() {
    faulty(Fault::SkipsRecords).await;
}

//! The in-memory adapters pass the suites, and faulty ones do not.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use netagg_core::memory::{MemoryAggregateStore, MemoryEventStore, MemoryLog, MemoryTotalsRepair};
use netagg_core::ports::{EventSource, SourceEvent, TotalsRepair};
use netagg_core::testkit::RepairedStores;
use netagg_core::{Day, Error, OutgoingRecord, PartitionId, Position, Record, StreamSource, testkit};

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
async fn a_source_over_a_stream_conforms() {
    testkit::plain_source(async |values| move || Box::new(stream_source(&values)) as Box<dyn EventSource>).await;
}

#[tokio::test]
async fn a_log_that_is_read_alone_conforms() {
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

/// A faulty source: reads a [`StreamSource`], and changes the events or takes time before them.
#[derive(Debug)]
struct Faulty {
    inner: StreamSource,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Waits while it holds records, and loses them if it is cancelled.
    LosesCancelled,
    /// Gives each record the same offset.
    SameOffset,
    /// Skips the first records, whether they are committed or not.
    Skips,
}

#[async_trait]
impl EventSource for Faulty {
    async fn next(&mut self) -> Result<SourceEvent, Error> {
        let mut event = self.inner.next().await?;
        let SourceEvent::Records(records) = &mut event else { return Ok(event) };
        match self.fault {
            Fault::LosesCancelled => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            Fault::SameOffset => records.iter_mut().for_each(|record| record.offset = 0),
            Fault::Skips => records.retain(|record| record.offset >= 70),
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

/// Runs the suite on a source with this fault.
async fn faulty(fault: Fault) {
    testkit::plain_source(async |values| {
        move || Box::new(Faulty { inner: stream_source(&values), fault }) as Box<dyn EventSource>
    })
    .await;
}

#[tokio::test]
#[should_panic = "values, with cancelled reads"]
async fn a_source_that_loses_records_of_cancelled_reads_is_caught() {
    faulty(Fault::LosesCancelled).await;
}

#[tokio::test]
#[should_panic = "offsets of values/0 increase: 0 comes after 0"]
async fn a_source_that_repeats_an_offset_is_caught() {
    faulty(Fault::SameOffset).await;
}

#[tokio::test]
#[should_panic = "values: found 2430 items, expected 2500; item 0"]
async fn a_source_that_skips_records_is_caught() {
    faulty(Fault::Skips).await;
}

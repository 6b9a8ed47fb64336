//! The test suite for sources without groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use super::check;
use crate::ports::{EventSource, SourceEvent};
use crate::record::{PartitionId, Position, Record};

/// The time limit for reading all records of a source.
const DEADLINE: Duration = Duration::from_secs(60);

/// Tests every behaviour that [`EventSource`] promises for a source that has a single reader and that ends, such as a file.
/// [`event_source`](super::event_source()) is the suite for sources whose readers form a group.
///
/// `open` gets the values of the records in their order, and returns a function that opens a source with these records. The
/// suite opens the source first without a commit, then again after a commit. Each value is short JSON on one line.
pub async fn plain_source<O: Fn() -> Box<dyn EventSource>>(open: impl AsyncFn(Vec<Bytes>) -> O) {
    an_empty_source_ends((open(Vec::new()).await)()).await;
    records_are_delivered_once_and_in_order(&open).await;
    a_cancelled_read_loses_no_record(&open).await;
    uncommitted_records_are_delivered_again(&open).await;
}

fn values(count: usize) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(format!(r#"{{"number":{number}}}"#))).collect()
}

/// Checks the events of a source, and collects its records.
#[derive(Debug, Default)]
struct Reading {
    records: Vec<Record>,
    /// The lowest offset that may follow, for each partition.
    next: BTreeMap<PartitionId, i64>,
    revoked: BTreeSet<PartitionId>,
}

impl Reading {
    /// Handles the next event, and returns whether it was the end.
    fn handle(&mut self, event: SourceEvent) -> bool {
        match event {
            SourceEvent::Assigned(partitions) => self.revoked.retain(|revoked| !partitions.contains(revoked)),
            SourceEvent::Revoked(partitions) => self.revoked.extend(partitions),
            SourceEvent::Records(records) => {
                for record in &records {
                    self.pass(&record.partition, record.offset, record.offset + 1);
                    assert!(record.timestamp.is_some(), "the record at offset {} has no timestamp", record.offset);
                }
                self.records.extend(records);
            }
            SourceEvent::Vacant(spans) => {
                for span in spans {
                    assert_eq!(span.records, 0, "a vacant span must have 0 records");
                    self.pass(&span.partition, span.from, span.to);
                }
            }
            SourceEvent::End => return true,
        }
        false
    }

    /// Checks that the offsets `from..to` may follow.
    fn pass(&mut self, partition: &PartitionId, from: i64, to: i64) {
        assert!(!self.revoked.contains(partition), "{partition} was revoked, but its offset {from} follows");
        let next = self.next.entry(partition.clone()).or_insert(0);
        assert!(from >= 0, "an offset of {partition} is negative: {from}");
        assert!(from >= *next, "offsets of {partition} do not increase: {from} comes after {}", *next - 1);
        *next = to;
    }

    async fn to_the_end(source: &mut dyn EventSource) -> Self {
        let mut reading = Self::default();
        let all = async { while !reading.handle(source.next().await.expect("a source without errors")) {} };
        let in_time = tokio::time::timeout(DEADLINE, all).await.is_ok();
        assert!(in_time, "the source does not end after {} records", reading.records.len());
        reading
    }

    fn values(&self) -> Vec<Bytes> {
        self.records.iter().map(|record| record.value.clone().unwrap_or_default()).collect()
    }
}

async fn an_empty_source_ends(mut source: Box<dyn EventSource>) {
    let reading = Reading::to_the_end(&mut *source).await;
    check::same_items("records of an empty source", &reading.records, &[]);
    source.commit(&[]).await.expect("nothing to commit");
    source.close().await.expect("closed");
}

async fn records_are_delivered_once_and_in_order<O: Fn() -> Box<dyn EventSource>>(
    open: &impl AsyncFn(Vec<Bytes>) -> O,
) {
    let values = values(2_500);
    let mut source = (open(values.clone()).await)();
    let reading = Reading::to_the_end(&mut *source).await;
    check::same_items("values", &reading.values(), &values);
    for _ in 0..2 {
        assert!(matches!(source.next().await, Ok(SourceEvent::End)), "a source that has ended must return only `End`");
    }
    source.close().await.expect("closed");
}

async fn a_cancelled_read_loses_no_record<O: Fn() -> Box<dyn EventSource>>(open: &impl AsyncFn(Vec<Bytes>) -> O) {
    let values = values(2_500);
    let mut source = (open(values.clone()).await)();
    let mut reading = Reading::default();
    let polling = async {
        loop {
            // Polls the read once, and drops it if it is not ready.
            match source.next().now_or_never() {
                Some(event) => {
                    if reading.handle(event.expect("a source without errors")) {
                        return;
                    }
                }
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, polling).await.is_ok();
    assert!(in_time, "a source with cancelled reads does not end after {} records", reading.records.len());
    check::same_items("values, with cancelled reads", &reading.values(), &values);
    source.close().await.expect("closed");
}

async fn uncommitted_records_are_delivered_again<O: Fn() -> Box<dyn EventSource>>(
    open: &impl AsyncFn(Vec<Bytes>) -> O,
) {
    let opened = open(values(100)).await;
    let mut source = opened();
    let first = Reading::to_the_end(&mut *source).await;
    let foreign = Position { partition: PartitionId::new("another source", 7), next_offset: 5 };
    source.commit(&[foreign]).await.expect("the position of another partition is ignored");
    let mut next = BTreeMap::new();
    for record in &first.records[..60] {
        next.insert(record.partition.clone(), record.offset + 1);
    }
    let positions: Vec<_> =
        next.iter().map(|(partition, &next_offset)| Position { partition: partition.clone(), next_offset }).collect();
    source.commit(&positions).await.expect("committed");
    source.close().await.expect("closed");
    drop(source);

    let mut source = opened();
    let again = Reading::to_the_end(&mut *source).await;
    let by_position = |reading: &Reading| -> BTreeMap<_, _> {
        let entry = |record: &Record| ((record.partition.clone(), record.offset), record.value.clone());
        reading.records.iter().map(entry).collect()
    };
    let (before, after) = (by_position(&first), by_position(&again));
    for (position, value) in &after {
        check::same("a record that is delivered again has the same offset", &Some(value), &before.get(position));
    }
    for position in before.keys().filter(|(partition, offset)| next.get(partition).is_none_or(|next| offset >= next)) {
        let (partition, offset) = position;
        assert!(after.contains_key(position), "an uncommitted record is not delivered again: {partition}/{offset}");
    }
    source.close().await.expect("closed");
}

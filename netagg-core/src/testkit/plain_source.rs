//! The behaviours of a source without groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use super::check;
use crate::ports::{EventSource, SourceEvent};
use crate::record::{PartitionId, Position, Record};

/// How long a source may take for all of its records.
const DEADLINE: Duration = Duration::from_secs(60);

/// Every behaviour that [`EventSource`] promises of a source that one reader reads alone and that ends, such as a file.
/// [`event_source`](super::event_source()) is the suite of sources whose readers form a group.
///
/// `open` makes a source of these values, each the value of one record in this order, and returns a function that opens the
/// source: first with nothing committed, then again after a commit. Values are short, on one line and JSON.
pub async fn plain_source<O: Fn() -> Box<dyn EventSource>>(open: impl AsyncFn(Vec<Bytes>) -> O) {
    an_empty_source_ends((open(Vec::new()).await)()).await;
    records_come_once_and_in_order(&open).await;
    a_cancelled_read_loses_nothing(&open).await;
    what_is_not_committed_comes_again(&open).await;
}

fn values(count: usize) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(format!(r#"{{"number":{number}}}"#))).collect()
}

/// Checks what a source tells, and gathers its records.
#[derive(Debug, Default)]
struct Reading {
    records: Vec<Record>,
    /// The lowest offset that may follow, of each partition.
    next: BTreeMap<PartitionId, i64>,
    revoked: BTreeSet<PartitionId>,
}

impl Reading {
    /// Takes the next event; whether it was the end.
    fn take(&mut self, event: SourceEvent) -> bool {
        match event {
            SourceEvent::Assigned(partitions) => self.revoked.retain(|revoked| !partitions.contains(revoked)),
            SourceEvent::Revoked(partitions) => self.revoked.extend(partitions),
            SourceEvent::Records(records) => {
                for record in &records {
                    self.pass(&record.partition, record.offset, record.offset + 1);
                    assert!(record.timestamp.is_some(), "a record needs a timestamp, offset {}", record.offset);
                }
                self.records.extend(records);
            }
            SourceEvent::Vacant(spans) => {
                for span in spans {
                    assert_eq!(span.records, 0, "a vacant span holds no record");
                    self.pass(&span.partition, span.from, span.to);
                }
            }
            SourceEvent::End => return true,
        }
        false
    }

    fn pass(&mut self, partition: &PartitionId, from: i64, to: i64) {
        assert!(!self.revoked.contains(partition), "{partition} was revoked, and offset {from} follows");
        let next = self.next.entry(partition.clone()).or_insert(0);
        assert!(from >= 0, "offsets of {partition} are not negative: {from}");
        assert!(from >= *next, "offsets of {partition} increase: {from} comes after {}", *next - 1);
        *next = to;
    }

    async fn to_the_end(source: &mut dyn EventSource) -> Self {
        let mut reading = Self::default();
        let all = async { while !reading.take(source.next().await.expect("a source that goes on")) {} };
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

async fn records_come_once_and_in_order<O: Fn() -> Box<dyn EventSource>>(open: &impl AsyncFn(Vec<Bytes>) -> O) {
    let values = values(2_500);
    let mut source = (open(values.clone()).await)();
    let reading = Reading::to_the_end(&mut *source).await;
    check::same_items("values", &reading.values(), &values);
    for _ in 0..2 {
        assert!(matches!(source.next().await, Ok(SourceEvent::End)), "after the end, only the end follows");
    }
    source.close().await.expect("closed");
}

async fn a_cancelled_read_loses_nothing<O: Fn() -> Box<dyn EventSource>>(open: &impl AsyncFn(Vec<Bytes>) -> O) {
    let values = values(2_500);
    let mut source = (open(values.clone()).await)();
    let mut reading = Reading::default();
    let polling = async {
        loop {
            // Polled once, and dropped if it has to wait.
            match source.next().now_or_never() {
                Some(event) => {
                    if reading.take(event.expect("a source that goes on")) {
                        return;
                    }
                }
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, polling).await.is_ok();
    assert!(in_time, "a source whose reads are cancelled does not end after {} records", reading.records.len());
    check::same_items("values, with cancelled reads", &reading.values(), &values);
    source.close().await.expect("closed");
}

async fn what_is_not_committed_comes_again<O: Fn() -> Box<dyn EventSource>>(open: &impl AsyncFn(Vec<Bytes>) -> O) {
    let opened = open(values(100)).await;
    let mut source = opened();
    let first = Reading::to_the_end(&mut *source).await;
    let foreign = Position { partition: PartitionId::new("of another source", 7), next_offset: 5 };
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
    let places = |reading: &Reading| -> BTreeMap<_, _> {
        let place = |record: &Record| ((record.partition.clone(), record.offset), record.value.clone());
        reading.records.iter().map(place).collect()
    };
    let (before, after) = (places(&first), places(&again));
    for (place, value) in &after {
        check::same("a record has the same offset when it comes again", &Some(value), &before.get(place));
    }
    for place in before.keys().filter(|(partition, offset)| next.get(partition).is_none_or(|next| offset >= next)) {
        assert!(after.contains_key(place), "a record that is not committed comes again: {}/{}", place.0, place.1);
    }
    source.close().await.expect("closed");
}

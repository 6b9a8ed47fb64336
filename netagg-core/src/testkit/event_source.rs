//! The test suite for event sources with groups, and for their publishers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::check;
use crate::ports::{EventPublisher, EventSource, SourceEvent};
use crate::record::{Header, OutgoingRecord, PartitionId, Position, Record};

/// The time limit of one test step. It includes rebalances of the broker.
const DEADLINE: Duration = Duration::from_secs(180);

/// Tests every behaviour that [`EventSource`] and [`EventPublisher`] promise together. `open` makes an empty topic with the
/// given number of partitions. It returns the publisher of the topic, and a function that joins a group and returns the new
/// member.
pub async fn event_source<J: Fn() -> Box<dyn EventSource>>(open: impl AsyncFn(usize) -> (Arc<dyn EventPublisher>, J)) {
    let (publisher, join) = open(1).await;
    records_arrive_as_they_were_published(&*publisher, join).await;
    let (publisher, join) = open(4).await;
    records_of_one_key_stay_in_order(&*publisher, join).await;
    let (publisher, join) = open(2).await;
    a_later_reader_starts_at_the_committed_position(&*publisher, join).await;
    let (publisher, join) = open(4).await;
    members_share_the_partitions_and_lose_no_record(&*publisher, join).await;
}

fn numbered(range: std::ops::Range<usize>) -> Vec<OutgoingRecord> {
    let record = |number: usize| OutgoingRecord::new(number.to_string()).with_key(format!("key-{}", number % 10));
    range.map(record).collect()
}

fn number(record: &Record) -> usize {
    let value = record.value.as_deref().expect("a value");
    std::str::from_utf8(value).expect("text").parse().expect("a number")
}

/// Reads until `enough` returns true for the records, and returns them.
async fn read_until(source: &mut dyn EventSource, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
    let mut records = Vec::new();
    let read = async {
        while !enough(&records) {
            match source.next().await.expect("a source without errors") {
                SourceEvent::Records(more) => records.extend(more),
                SourceEvent::Assigned(_) | SourceEvent::Revoked(_) | SourceEvent::Vacant(_) => {}
                SourceEvent::End => panic!("the source ended after {} records", records.len()),
            }
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, read).await.is_ok();
    assert!(in_time, "records are missing: only {} arrived", records.len());
    records
}

fn positions(records: &[Record]) -> Vec<Position> {
    let mut next = BTreeMap::<PartitionId, i64>::new();
    for record in records {
        next.insert(record.partition.clone(), record.offset + 1);
    }
    next.into_iter().map(|(partition, next_offset)| Position { partition, next_offset }).collect()
}

async fn records_arrive_as_they_were_published(
    publisher: &dyn EventPublisher,
    join: impl Fn() -> Box<dyn EventSource>,
) {
    let published = vec![
        OutgoingRecord::default(),
        OutgoingRecord::new("").with_key(""),
        OutgoingRecord {
            key: Some(Bytes::from_static(b"\0\xff")),
            value: Some(Bytes::from(vec![b'x'; 1 << 20])),
            headers: vec![
                Header::new("same", "one"),
                Header { name: "same".to_owned(), value: None },
                Header::new("empty", ""),
            ],
        },
    ];
    publisher.publish(published.clone()).await.expect("published");
    publisher.publish(Vec::new()).await.expect("nothing to publish");
    let mut source = join();
    let records = read_until(&mut *source, |records| records.len() >= published.len()).await;
    for (at, (record, published)) in records.iter().zip(&published).enumerate() {
        assert_eq!(record.offset, at as i64);
        assert!(record.timestamp.is_some());
        check::same("key", &record.key, &published.key);
        check::same("value", &record.value, &published.value);
        check::same_items("headers", &record.headers, &published.headers);
    }
    source.close().await.expect("closed");
}

async fn records_of_one_key_stay_in_order(publisher: &dyn EventPublisher, join: impl Fn() -> Box<dyn EventSource>) {
    publisher.publish(numbered(0..2_000)).await.expect("published");
    let mut source = join();
    let records = read_until(&mut *source, |records| records.len() >= 2_000).await;
    let mut partitions = BTreeMap::<Bytes, BTreeSet<PartitionId>>::new();
    let mut last = BTreeMap::<Bytes, usize>::new();
    for record in &records {
        let key = record.key.clone().expect("a key");
        partitions.entry(key.clone()).or_default().insert(record.partition.clone());
        let before = last.insert(key, number(record));
        assert!(before.is_none_or(|before| before < number(record)));
    }
    assert_eq!(records.iter().map(number).collect::<BTreeSet<_>>().len(), 2_000);
    assert!(partitions.values().all(|partitions| partitions.len() == 1), "all records of a key are in one partition");
    assert!(partitions.values().flatten().collect::<BTreeSet<_>>().len() > 1, "the keys are in several partitions");
    source.close().await.expect("closed");
}

async fn a_later_reader_starts_at_the_committed_position(
    publisher: &dyn EventPublisher,
    join: impl Fn() -> Box<dyn EventSource>,
) {
    publisher.publish(numbered(0..200)).await.expect("published");
    let mut first = join();
    let records = read_until(&mut *first, |records| records.len() >= 200).await;
    let (done, rest) = records.split_at(120);
    first.commit(&positions(&done[..60])).await.expect("committed");
    first.commit(&positions(done)).await.expect("committed");
    first.close().await.expect("closed");
    drop(first);

    let mut second = join();
    let again = read_until(&mut *second, |records| records.len() >= rest.len()).await;
    let numbers = |records: &[Record]| records.iter().map(number).collect::<BTreeSet<_>>();
    let (again, rest) = (numbers(&again), numbers(rest));
    let differ: Vec<_> = again.symmetric_difference(&rest).collect();
    check::same_items("only the records that were not committed are delivered again; differences", &differ, &[]);
    second.close().await.expect("closed");
}

async fn members_share_the_partitions_and_lose_no_record(
    publisher: &dyn EventPublisher,
    join: impl Fn() -> Box<dyn EventSource>,
) {
    let mut seen = BTreeSet::new();
    let mut one = join();
    publisher.publish(numbered(0..400)).await.expect("published");
    let records = read_until(&mut *one, |records| records.len() >= 400).await;
    one.commit(&positions(&records)).await.expect("committed");
    seen.extend(records.iter().map(number));

    // A second member joins and takes over some partitions.
    let mut two = join();
    let (mut one_holds, mut two_holds) = (4, 0);
    let shared = async {
        while one_holds == 4 || two_holds == 0 || one_holds + two_holds != 4 {
            let (event, holds) = tokio::select! {
                event = one.next() => (event, &mut one_holds),
                event = two.next() => (event, &mut two_holds),
            };
            match event.expect("a source without errors") {
                SourceEvent::Assigned(partitions) => *holds += partitions.len(),
                SourceEvent::Revoked(partitions) => *holds -= partitions.len(),
                SourceEvent::Records(records) => seen.extend(records.iter().map(number)),
                SourceEvent::Vacant(_) => {}
                SourceEvent::End => panic!("the source ended"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, shared).await.expect("the members share the partitions");

    publisher.publish(numbered(400..800)).await.expect("published");
    let both = async {
        while seen.len() < 800 {
            let event = tokio::select! { event = one.next() => event, event = two.next() => event };
            if let SourceEvent::Records(records) = event.expect("a source without errors") {
                seen.extend(records.iter().map(number));
            }
        }
    };
    tokio::time::timeout(DEADLINE, both).await.expect("the two members read all records");

    // A member leaves without committing its last records. The other member gets them.
    two.close().await.expect("closed");
    drop(two);
    publisher.publish(numbered(800..1_000)).await.expect("published");
    let records = read_until(&mut *one, |records| {
        records.iter().map(number).filter(|number| *number >= 800).collect::<BTreeSet<_>>().len() >= 200
    })
    .await;
    seen.extend(records.iter().map(number));
    assert_eq!(seen.len(), 1_000);
    one.close().await.expect("closed");
}

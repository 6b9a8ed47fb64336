//! `netagg-kafka` against a real broker.

mod conformance;
mod dead_letter_reader;
mod dead_letter_replay;
mod dead_letters;
mod outages;
mod publisher;
mod source;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use netagg_core::ports::{EventSource, SourceEvent};
use netagg_core::{Error, OutgoingRecord, PartitionId, Position, Record, Span};
use netagg_kafka::{Creation, KafkaConfig, KafkaSource, KafkaTopics, TopicSpec};
use netagg_testkit::{kafka, unique};

/// How long a step that depends on brokers and rebalances may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// A configuration for the shared broker. Its session timeout is long: if a member does not leave its group as it should, the
/// group waits for it longer than [`DEADLINE`], and the test fails.
async fn config() -> KafkaConfig {
    with(KafkaConfig::new(kafka::brokers().await), &[("session.timeout.ms", "120000")])
}

fn with(config: KafkaConfig, options: &[(&str, &str)]) -> KafkaConfig {
    options.iter().try_fold(config, |config, (name, value)| config.with_option(name, value)).unwrap()
}

/// A new topic of events.
async fn topic(config: &KafkaConfig, partitions: i32) -> String {
    let name = unique("events");
    create(config, TopicSpec { partitions, ..TopicSpec::events(&name) }).await;
    name
}

async fn create(config: &KafkaConfig, spec: TopicSpec) {
    assert_eq!(KafkaTopics::new(config).unwrap().create(&spec).await.unwrap(), Creation::Created);
}

fn record(number: usize, bytes: usize) -> OutgoingRecord {
    let mut value = number.to_string().into_bytes();
    value.resize(bytes.max(value.len()), b' ');
    OutgoingRecord::new(value).with_key(format!("user {number}"))
}

fn number(record: &Record) -> usize {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().trim_end().parse().unwrap()
}

fn numbers(records: &[Record]) -> BTreeSet<usize> {
    records.iter().map(number).collect()
}

/// Positions after the last records of each partition.
fn positions(records: &[Record]) -> Vec<Position> {
    let next: BTreeMap<_, _> = records.iter().map(|record| (record.partition.clone(), record.offset + 1)).collect();
    next.into_iter().map(|(partition, next_offset)| Position { partition, next_offset }).collect()
}

/// The events that a source has returned, collected.
#[derive(Debug, Default)]
struct Received {
    records: Vec<Record>,
    vacant: Vec<Span>,
    assigned: BTreeSet<PartitionId>,
    revoked: BTreeSet<PartitionId>,
}

impl Received {
    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assigned(partitions) => self.assigned.extend(partitions),
            SourceEvent::Records(records) => self.records.extend(records),
            SourceEvent::Vacant(spans) => self.vacant.extend(spans),
            SourceEvent::Revoked(partitions) => self.revoked.extend(partitions),
            SourceEvent::End => panic!("the source ended"),
        }
    }

    /// Reads from `source` until `enough` returns true.
    async fn until(&mut self, source: &mut KafkaSource, enough: impl Fn(&Self) -> bool) {
        let reading = async {
            while !enough(self) {
                self.take(source.next().await.unwrap());
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, reading).await.is_ok();
        assert!(
            in_time,
            "not in time: {} records, assigned {:?}, revoked {:?}, {:?}",
            self.records.len(),
            self.assigned,
            self.revoked,
            source.health()
        );
    }
}

async fn read(source: &mut KafkaSource, count: usize) -> Vec<Record> {
    let mut received = Received::default();
    received.until(source, |received| received.records.len() >= count).await;
    received.records
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn is_unavailable(error: &Error) -> bool {
    matches!(error, Error::Unavailable { dependency: "kafka", .. })
}

//! Reading the dead-letter topic.

use std::collections::{BTreeMap, BTreeSet};

use netagg_core::ports::{DeadLetters, EventPublisher};
use netagg_core::{
    DeadLetter, Error, EventLimits, Header, OutgoingRecord, PartitionId, Record, RecordTimestamp, Timestamp,
};
use netagg_kafka::{DlqReader, DlqRecord, KafkaConfig, KafkaDeadLetters, KafkaPublisher, TopicSpec};
use netagg_testkit::unique;

use super::{config, create, record};
use crate::support::kafka::Transactions;

#[tokio::test]
async fn every_message_is_read_once_and_each_partition_in_order() {
    let (config, topic) = dlq(4).await;
    let dead_letters: Vec<_> = (0..500).map(|offset| dead_letter("events", offset)).collect();
    KafkaDeadLetters::new(&config, &topic).unwrap().send(&dead_letters).await.unwrap();
    let foreign = vec![record(1, 0), OutgoingRecord { value: None, ..record(2, 0) }];
    KafkaPublisher::new(&config, &topic).unwrap().publish(foreign).await.unwrap();

    let read = read(&config, &topic, None).await;
    let origins: Vec<_> = read.iter().filter_map(|dead_letter| dead_letter.origin.as_ref()).collect();
    assert_eq!((read.len(), origins.len()), (502, 500));
    let sources: BTreeSet<_> = origins.iter().map(|origin| origin.source.offset).collect();
    assert_eq!(sources, (0..500).collect());
    for (dead_letter, sent) in
        read.iter().filter_map(|dead_letter| Some((dead_letter, &dead_letters[source(dead_letter)? as usize])))
    {
        assert_eq!(dead_letter.record.value, sent.record.value);
        assert_eq!(dead_letter.record.key, sent.record.key);
        assert_eq!(dead_letter.origin.as_ref().unwrap().detail, sent.reason.to_string());
    }
    let mut next = BTreeMap::new();
    for dead_letter in &read {
        let next = next.entry(dead_letter.record.partition.number).or_insert(0);
        assert_eq!(dead_letter.record.offset, *next, "in partition {}", dead_letter.record.partition.number);
        *next += 1;
    }
}

#[tokio::test]
async fn the_time_that_counts_is_the_letters_own() {
    let (config, topic) = dlq(2).await;
    let transactions = Transactions::new(config.brokers()).await;
    transactions.send(&topic, 0, &["committed"]).await;
    transactions.commit().await;
    transactions.send(&topic, 0, &["aborted"]).await;
    transactions.abort().await;
    transactions.send(&topic, 0, &["open"]).await;
    let values: Vec<_> = self::read(&config, &topic, None).await.iter().map(value).collect();
    assert_eq!(values, ["committed"]);
    let reader = DlqReader::new(&config, &topic);
    assert_eq!(reader.get(0, 1).await.unwrap(), None, "the offset of the first transaction's marker");
}

#[tokio::test]
async fn a_missing_topic_is_an_error_with_a_remedy() {
    let config = config().await;
    let reader = DlqReader::new(&config, &unique("missing"));
    for error in [reader.read(None).await.map(drop).unwrap_err(), reader.get(0, 0).await.map(drop).unwrap_err()] {
        assert!(matches!(&error, Error::NotSetUp { reason, .. } if reason.contains("create it")), "{error:?}");
    }
}

#[tokio::test]
async fn the_reader_works_with_the_newer_group_protocol() {
    let (config, topic) = dlq(1).await;
    KafkaDeadLetters::new(&config, &topic).unwrap().send(&[dead_letter("events", 0)]).await.unwrap();
    let config = KafkaConfig::new(config.brokers()).with_option("group.protocol", "consumer").unwrap();
    assert_eq!(read(&config, &topic, None).await.len(), 1);
}

/// A new dead-letter topic.
pub(super) async fn dlq(partitions: i32) -> (KafkaConfig, String) {
    let config = config().await;
    let topic = unique("dlq");
    create(&config, TopicSpec { partitions, ..TopicSpec::dead_letters(&topic) }).await;
    (config, topic)
}

/// The dead letter of an invalid record at `offset` of partition 3 of `topic`.
pub(super) fn dead_letter(topic: &str, offset: i64) -> DeadLetter {
    let record = Record::new(PartitionId::new(topic, 3), offset, format!("no JSON {offset}"))
        .with_timestamp(RecordTimestamp::from_millis(1_000 + offset))
        .with_key(format!("user {}", offset % 17))
        .with_headers(vec![Header::new("own", "kept"), Header { name: "null".to_owned(), value: None }]);
    let reason = EventLimits::default().admit(&record).unwrap_err();
    DeadLetter { record, reason }
}

pub(super) async fn read(config: &KafkaConfig, topic: &str, since: Option<Timestamp>) -> Vec<DlqRecord> {
    let mut dead_letters = DlqReader::new(config, topic).read(since).await.unwrap();
    let mut read = Vec::new();
    while let Some(dead_letter) = dead_letters.next().await.unwrap() {
        read.push(dead_letter);
    }
    read
}

pub(super) fn value(dead_letter: &DlqRecord) -> String {
    String::from_utf8(dead_letter.record.value.as_ref().unwrap().to_vec()).unwrap()
}

fn source(dead_letter: &DlqRecord) -> Option<i64> {
    Some(dead_letter.origin.as_ref()?.source.offset)
}

//! What is read of the topic of dead letters.

use std::collections::{BTreeMap, BTreeSet};

use netagg_core::ports::{DeadLetters, EventPublisher};
use netagg_core::{
    DeadLetter, Error, EventLimits, Header, OutgoingRecord, PartitionId, Record, RecordTimestamp, Timestamp,
};
use netagg_kafka::{KafkaConfig, KafkaDeadLetters, KafkaLetterReader, KafkaPublisher, StoredLetter, TopicSpec};
use netagg_testkit::unique;

use super::{config, create, record};
use crate::support::kafka::Transactions;

#[tokio::test]
async fn every_message_is_read_once_and_those_of_a_partition_in_order() {
    let (config, topic) = dlq(4).await;
    let letters: Vec<_> = (0..500).map(|offset| letter("events", offset)).collect();
    KafkaDeadLetters::new(&config, &topic).unwrap().send(&letters).await.unwrap();
    let foreign = vec![record(1, 0), OutgoingRecord { value: None, ..record(2, 0) }];
    KafkaPublisher::new(&config, &topic).unwrap().publish(foreign).await.unwrap();

    let read = read(&config, &topic, None).await;
    let origins: Vec<_> = read.iter().filter_map(|letter| letter.origin.as_ref()).collect();
    assert_eq!((read.len(), origins.len()), (502, 500));
    let sources: BTreeSet<_> = origins.iter().map(|origin| origin.source.offset).collect();
    assert_eq!(sources, (0..500).collect());
    for (letter, sent) in read.iter().filter_map(|letter| Some((letter, &letters[source(letter)? as usize]))) {
        assert_eq!(letter.record.value, sent.record.value);
        assert_eq!(letter.record.key, sent.record.key);
        assert_eq!(letter.origin.as_ref().unwrap().detail, sent.reason.to_string());
    }
    let mut next = BTreeMap::new();
    for letter in &read {
        let next = next.entry(letter.record.partition.number).or_insert(0);
        assert_eq!(letter.record.offset, *next, "in partition {}", letter.record.partition.number);
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
    let reader = KafkaLetterReader::new(&config, &topic);
    assert_eq!(reader.get(0, 1).await.unwrap(), None, "the mark of the first transaction");
}

#[tokio::test]
async fn a_missing_topic_is_told() {
    let config = config().await;
    let reader = KafkaLetterReader::new(&config, &unique("missing"));
    for error in [reader.read(None).await.map(drop).unwrap_err(), reader.get(0, 0).await.map(drop).unwrap_err()] {
        assert!(matches!(&error, Error::NotSetUp { reason, .. } if reason.contains("create it")), "{error:?}");
    }
}

#[tokio::test]
async fn a_member_of_the_newer_group_protocol_reads_as_well() {
    let (config, topic) = dlq(1).await;
    KafkaDeadLetters::new(&config, &topic).unwrap().send(&[letter("events", 0)]).await.unwrap();
    let config = KafkaConfig::new(config.brokers()).with_option("group.protocol", "consumer").unwrap();
    assert_eq!(read(&config, &topic, None).await.len(), 1);
}

/// A fresh topic of dead letters.
pub(super) async fn dlq(partitions: i32) -> (KafkaConfig, String) {
    let config = config().await;
    let topic = unique("dlq");
    create(&config, TopicSpec { partitions, ..TopicSpec::dead_letters(&topic) }).await;
    (config, topic)
}

/// The letter of an invalid record at `offset` of partition 3 of `topic`.
pub(super) fn letter(topic: &str, offset: i64) -> DeadLetter {
    let record = Record::new(PartitionId::new(topic, 3), offset, format!("no JSON {offset}"))
        .with_timestamp(RecordTimestamp::from_millis(1_000 + offset))
        .with_key(format!("user {}", offset % 17))
        .with_headers(vec![Header::new("own", "kept"), Header { name: "null".to_owned(), value: None }]);
    let reason = EventLimits::default().admit(&record).unwrap_err();
    DeadLetter { record, reason }
}

pub(super) async fn read(config: &KafkaConfig, topic: &str, since: Option<Timestamp>) -> Vec<StoredLetter> {
    let mut letters = KafkaLetterReader::new(config, topic).read(since).await.unwrap();
    let mut read = Vec::new();
    while let Some(letter) = letters.next().await.unwrap() {
        read.push(letter);
    }
    read
}

pub(super) fn value(letter: &StoredLetter) -> String {
    String::from_utf8(letter.record.value.as_ref().unwrap().to_vec()).unwrap()
}

fn source(letter: &StoredLetter) -> Option<i64> {
    Some(letter.origin.as_ref()?.source.offset)
}

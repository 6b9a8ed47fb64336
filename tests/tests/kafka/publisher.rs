//! Guarantees of the publisher beyond the conformance suite of its port.

use std::collections::BTreeMap;

use netagg_core::ports::EventPublisher;
use netagg_core::{Error, OutgoingRecord};
use netagg_kafka::{KafkaPublisher, KafkaSource};
use netagg_testkit::unique;

use super::{bytes, config, numbers, read, record, topic, with};

#[tokio::test]
async fn a_key_goes_to_the_partition_that_the_java_client_chooses() {
    let config = config().await;
    let topic = topic(&config, 8).await;
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    // murmur2 of the key without its sign, modulo 8
    let expected = BTreeMap::from([("123456789", 6), ("user", 6), ("a", 4), ("79991234567", 1)]);
    let records = expected.keys().map(|key| OutgoingRecord { key: Some(bytes(key)), ..OutgoingRecord::default() });
    publisher.publish(records.collect()).await.unwrap();
    let mut source = KafkaSource::new(&config, &unique("group"), &topic).unwrap();
    for record in read(&mut source, expected.len()).await {
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        assert_eq!(record.partition.number, expected[key.as_str()], "{key}");
    }
}

#[tokio::test]
async fn the_publisher_waits_while_its_queue_is_full() {
    let config =
        with(config().await, &[("queue.buffering.max.messages", "10"), ("queue.buffering.max.kbytes", "1024")]);
    let topic = topic(&config, 2).await;
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    let publish = |from| publisher.publish((from..from + 500).map(|number| record(number, 100)).collect());
    tokio::try_join!(publish(0), publish(500), publish(1_000)).unwrap();
    let mut source = KafkaSource::new(&config, &unique("group"), &topic).unwrap();
    assert_eq!(numbers(&read(&mut source, 1_500).await).len(), 1_500);
}

#[tokio::test]
async fn a_message_above_the_size_limit_is_rejected_for_good() {
    let config = config().await;
    let topic = topic(&config, 2).await;
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    for bytes in [1_500_000, 3_000_000] {
        // Noise cannot be compressed. The broker limits the sent size, and the client limits the size before compression.
        let mut large = record(1, 0);
        large.value = Some(noise(bytes).into());
        let error = publisher.publish(vec![record(0, 0), large]).await.unwrap_err();
        assert!(matches!(error, Error::Refused { dependency: "kafka", .. }), "{error:?}");
        assert!(!error.is_retryable());
    }
    publisher.publish(vec![record(2, 0)]).await.unwrap();
}

#[tokio::test]
async fn a_missing_topic_is_an_error_with_a_remedy() {
    let config = with(config().await, &[("topic.metadata.propagation.max.ms", "1000")]);
    let publisher = KafkaPublisher::new(&config, &unique("missing")).unwrap();
    let error = publisher.publish(vec![record(0, 0)]).await.unwrap_err();
    assert!(matches!(&error, Error::NotSetUp { reason, .. } if reason.contains("create it")), "{error:?}");
}

/// Bytes that no codec can compress.
pub(super) fn noise(count: usize) -> Vec<u8> {
    use rand::RngExt;
    let mut bytes = vec![0; count];
    rand::rng().fill(&mut bytes[..]);
    bytes
}

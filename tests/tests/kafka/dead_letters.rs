//! Dead letters that are too large for their topic.

use bytes::Bytes;
use netagg_core::ports::DeadLetters;
use netagg_core::{DeadLetter, EventLimits, Header, PartitionId, Record, RecordTimestamp};
use netagg_kafka::{KafkaDeadLetters, KafkaSource, TopicSpec};
use netagg_testkit::unique;

use super::publisher::noise;
use super::{config, create, read};

fn dead_letter(offset: i64, key: usize, value: usize) -> DeadLetter {
    let record = Record::new(PartitionId::new("events", 0), offset, noise(value))
        .with_timestamp(RecordTimestamp::from_millis(1))
        .with_key(noise(key))
        .with_headers(vec![Header::new("own", "header")]);
    let reason = EventLimits::default().admit(&record).unwrap_err();
    DeadLetter { record, reason }
}

fn header(record: &Record, name: &str) -> Option<Bytes> {
    record.headers.iter().find(|header| header.name == name)?.value.clone()
}

#[tokio::test]
async fn the_largest_event_fits_with_its_headers() {
    let sent = [dead_letter(0, 256, 1 << 20)];
    let received = send_and_receive(TopicSpec::dead_letters(unique("dlq")), &sent).await;
    assert_eq!(received[0].value, sent[0].record.value);
    assert_eq!(received[0].headers, sent[0].headers());
}

#[tokio::test]
async fn a_dead_letter_above_the_limit_of_the_topic_is_cut_and_has_a_header_about_it() {
    let spec = TopicSpec { max_message_bytes: 100_000, ..TopicSpec::dead_letters(unique("dlq")) };
    let sent = [
        dead_letter(0, 10, 1_000),
        dead_letter(1, 10, 1 << 20),
        dead_letter(2, 10, 90_000),
        dead_letter(3, 300_000, 10),
    ];
    let mut received = send_and_receive(spec, &sent).await;
    received.sort_by_key(|record| header(record, "netagg-source-offset"));
    for at in [0, 2] {
        assert_eq!(received[at].value, sent[at].record.value, "a dead letter that fits is not cut");
        assert_eq!(received[at].headers, sent[at].headers());
    }
    let value = received[1].value.clone().unwrap();
    assert_eq!(header(&received[1], "netagg-truncated"), Some("1048576".into()));
    assert!(!value.is_empty() && sent[1].record.value.as_ref().unwrap().starts_with(&value));
    assert_eq!(received[1].key, sent[1].record.key);
    assert_eq!(header(&received[1], "own"), Some("header".into()));

    assert_eq!((&received[3].key, &received[3].value), (&None, &Some(Bytes::new())), "only netagg's headers fit");
    assert_eq!(header(&received[3], "netagg-truncated"), Some("10".into()));
    assert_eq!(header(&received[3], "netagg-error"), Some(sent[3].reason.kind().as_str().into()));
    assert_eq!(header(&received[3], "own"), None);
}

async fn send_and_receive(spec: TopicSpec, sent: &[DeadLetter]) -> Vec<Record> {
    let config = config().await;
    let topic = spec.name.clone();
    create(&config, TopicSpec { partitions: 1, ..spec }).await;
    KafkaDeadLetters::new(&config, &topic).unwrap().send(sent).await.unwrap();
    read(&mut KafkaSource::new(&config, &unique("group"), &topic).unwrap(), sent.len()).await
}

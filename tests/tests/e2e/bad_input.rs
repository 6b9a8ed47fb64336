//! Invalid messages: each becomes a dead letter with its reason, and no invalid message blocks other messages.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use netagg_core::ports::{EventPublisher, EventSource, SourceEvent};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{OutgoingRecord, Record};
use netagg_kafka::{KafkaConfig, KafkaPublisher, KafkaSource};
use netagg_testkit::unique;

use super::installation::{Installation, PATIENCE};
use crate::support::kafka;

fn with_meta(id: u128, meta: &str) -> Vec<u8> {
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ");
    format!(
        r#"{{"event_id":"{}","source_id":"bad","user_id":"u","type":"DATA","started_at":"{now}","meta":{meta}}}"#,
        uuid::Uuid::from_u128(id)
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_messages_become_dead_letters_and_block_nothing() {
    let installation = Installation::new().await;
    let deep = [r#"{"a":"#.repeat(100_000), "1".to_owned(), "}".repeat(100_000)].concat();
    let bad: Vec<(&str, Option<Vec<u8>>)> = vec![
        ("null_value", None),
        ("empty_value", Some(Vec::new())),
        ("not_utf8", Some((0..1_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect())),
        ("malformed_json", Some(vec![b'['; 50])),
        ("too_deep", Some(vec![b'['; 1_000_000])),
        ("too_deep", Some(deep.into_bytes())),
        ("not_an_object", Some(b"[1,2]".to_vec())),
        ("nul_character", Some(with_meta(1, r#"{"a":"\u0000"}"#))),
        ("nul_character", Some(with_meta(2, r#"{"\u0000":1}"#))),
        ("lone_surrogate", Some(with_meta(3, r#"{"a":["\ud800"]}"#))),
        ("number_too_large", Some(with_meta(4, r#"{"a":1e200000}"#))),
        ("number_too_large", Some(with_meta(5, r#"{"a":-1e-16384}"#))),
        ("wrong_type", Some(with_meta(6, "5"))),
        ("too_deep", Some(with_meta(7, &["[".repeat(100), "]".repeat(100)].concat()))),
        ("missing_field", Some(b"{}".to_vec())),
        ("too_old", Some(event(EventTemplate { started_at: "1999-01-01T00:00:00Z", ..template(8) }).encode())),
        (
            "too_far_in_future",
            Some(event(EventTemplate { started_at: "2990-01-01T00:00:00Z", ..template(9) }).encode()),
        ),
    ];
    // Values at the limits of jsonb. They are between the invalid messages on the same partition.
    let good = [
        r#"{"a":1e131071}"#,
        r#"{"a":1e-16383,"b":0e200000}"#,
        r#"{"a":"\ud83d\ude00","\u0001":[{"":[]}]}"#,
        &[r#"{"a":"#, &"[".repeat(98), &"]".repeat(98), "}"].concat(),
    ];
    let config = KafkaConfig::new(installation.variable("KAFKA_BROKERS"));
    let publisher = KafkaPublisher::new(&config, installation.variable("KAFKA_TOPIC")).expect("a publisher");
    let mut records = Vec::new();
    let key = Some(Bytes::from_static(b"one partition"));
    for (at, (_, value)) in bad.iter().enumerate() {
        records.push(OutgoingRecord { key: key.clone(), value: value.clone().map(Bytes::from), headers: Vec::new() });
        if let Some(meta) = good.get(at) {
            let value = Some(with_meta(1_000 + at as u128, meta).into());
            records.push(OutgoingRecord { key: key.clone(), value, headers: Vec::new() });
        }
    }
    publisher.publish(records).await.expect("published");

    let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    installation.drained_and_exact(good.len() as i64).await;

    let dead_letters = dead_letters(&installation, bad.len()).await;
    assert_eq!(dead_letters.len(), bad.len(), "each message has one dead letter");
    for ((kind, value), dead_letter) in bad.iter().zip(&dead_letters) {
        let headers: BTreeMap<_, _> = dead_letter
            .headers
            .iter()
            .map(|header| {
                (header.name.as_str(), header.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default())
            })
            .collect();
        assert_eq!(headers["netagg-error"], *kind, "{}", headers["netagg-error-detail"]);
        assert!(headers["netagg-error-detail"].contains("accepted: "), "{}", headers["netagg-error-detail"]);
        assert_eq!(headers["netagg-source-topic"], installation.variable("KAFKA_TOPIC"));
        assert_eq!(dead_letter.key, key);
        assert_eq!(dead_letter.value.as_deref(), value.as_deref(), "{kind}: byte for byte");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_out_of_range_is_not_a_missing_timestamp_and_is_kept() {
    let installation = Installation::new().await;
    let (brokers, topic) = (installation.variable("KAFKA_BROKERS"), installation.variable("KAFKA_TOPIC"));
    kafka::accept_any_timestamp(brokers, topic).await;
    let now = chrono::Utc::now();
    let started_at = now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let valid = event(EventTemplate { started_at: &started_at, ..template(1) }).encode();
    let nanos = now.timestamp_nanos_opt().expect("in range");
    let year_10000 = 253_402_300_800_000;
    let bad = [
        ("timestamp_out_of_range", &valid[..], now.timestamp_micros()),
        ("timestamp_out_of_range", &valid, nanos),
        ("timestamp_out_of_range", &valid, year_10000),
        ("too_far_in_future", &valid, 1_000),
        ("malformed_json", b"no JSON", nanos),
    ];
    for (_, value, timestamp) in bad {
        kafka::send_at(brokers, topic, value, timestamp).await;
    }
    kafka::send_at(brokers, topic, &valid, now.timestamp_millis()).await;

    let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    installation.drained_and_exact(1).await;
    let mut found: Vec<_> = dead_letters(&installation, bad.len())
        .await
        .iter()
        .map(|dead_letter| {
            let header = |name: &str| {
                let header = dead_letter.headers.iter().find(|header| header.name == name).expect("a header");
                String::from_utf8(header.value.as_deref().unwrap_or_default().to_vec()).expect("text")
            };
            let timestamp: i64 = header("netagg-source-timestamp").parse().expect("a number");
            (header("netagg-error"), timestamp)
        })
        .collect();
    let mut expected: Vec<_> = bad.iter().map(|(kind, _, timestamp)| ((*kind).to_owned(), *timestamp)).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let listed = installation.run("netagg", &["dlq", "list", "--json", "--kind", "timestamp_out_of_range"]).await;
    assert_eq!(listed.stdout.lines().count(), 3, "{}\n{}", listed.stdout, listed.stderr);
    let micros = format!("\"timestamp\":null,\"timestamp_millis\":{}", now.timestamp_micros());
    assert!(listed.stdout.contains(&micros), "{}", listed.stdout);
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}\n{}", audit.stdout, audit.stderr);
}

fn template(id: u128) -> EventTemplate<'static> {
    EventTemplate { id, source: "bad", ..EventTemplate::default() }
}

/// The dead letters in the order of their original records.
async fn dead_letters(installation: &Installation, count: usize) -> Vec<Record> {
    let config = KafkaConfig::new(installation.variable("KAFKA_BROKERS"));
    let topic = installation.variable("KAFKA_DLQ_TOPIC");
    let mut source = KafkaSource::new(&config, &unique("reader"), topic).expect("a source");
    let mut dead_letters = Vec::new();
    let read = async {
        while dead_letters.len() < count {
            if let SourceEvent::Records(records) = source.next().await.expect("records") {
                dead_letters.extend(records);
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the dead letters arrive");
    // No more dead letters may follow. The wait is short: if more would follow later, the test would not notice it.
    if let Ok(Ok(SourceEvent::Records(more))) = tokio::time::timeout(Duration::from_millis(200), source.next()).await {
        dead_letters.extend(more);
    }
    source.close().await.expect("closed");
    let offset = |record: &Record| {
        let header = record.headers.iter().find(|header| header.name == "netagg-source-offset");
        let value = header.and_then(|header| header.value.as_deref()).expect("an offset");
        String::from_utf8_lossy(value).parse::<i64>().expect("a number")
    };
    dead_letters.sort_by_key(offset);
    dead_letters
}

//! An identity with two contents, which the two services process in opposite orders.

use std::sync::Mutex;

use bytes::Bytes;
use netagg_core::ports::{EventPublisher, EventSource, SourceEvent};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Event, EventType, Identity, OutgoingRecord, Position, Record};
use netagg_kafka::{KafkaConfig, KafkaPublisher, KafkaSource};
use netagg_testkit::eventually;
use serde_json::Value;

use super::installation::{Installation, PATIENCE};

/// Two copies of an identity, with different days and types.
fn copies() -> [Event; 2] {
    let now = chrono::Utc::now();
    let copy = |days: i64, event_type, bytes_up| {
        let started_at = (now - chrono::Duration::days(days)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        event(EventTemplate { started_at: &started_at, event_type, bytes_up, ..EventTemplate::default() })
    };
    [copy(1, EventType::Data, 7), copy(40, EventType::CallIn, 11)]
}

/// The message of `event`. The key decides its partition.
fn message(event: &Event, key: &'static str) -> OutgoingRecord {
    let key = Some(Bytes::from_static(key.as_bytes()));
    OutgoingRecord { key, value: Some(event.encode().into()), headers: Vec::new() }
}

/// Reads with the group of the aggregator until `found` returns a position, and commits this position.
async fn set_position(installation: &Installation, found: impl Fn(SourceEvent) -> Option<Position>) {
    let config = KafkaConfig::new(installation.variable("KAFKA_BROKERS"));
    let group = installation.variable("KAFKA_GROUP_ID_AGGREGATOR");
    let mut source = KafkaSource::new(&config, group, installation.variable("KAFKA_TOPIC")).expect("a source");
    let position = eventually(PATIENCE, "a position", async || {
        found(source.next().await.map_err(|error| error.to_string())?).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    source.commit(&[position]).await.expect("committed");
    source.close().await.expect("closed");
}

async fn until(installation: &Installation, condition: &str, query: &'static str, expected: i64) {
    eventually(PATIENCE, condition, async || {
        let found = installation.value::<i64>(query).await;
        if found == expected { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_in_opposite_orders_ends_with_the_stored_copy() {
    const COUNTED: &str = "SELECT coalesce(sum(sum_bytes_up), 0)::bigint FROM agg_day";
    let installation = Installation::new().await;
    let config = KafkaConfig::new(installation.variable("KAFKA_BROKERS"));
    let publisher = KafkaPublisher::new(&config, installation.variable("KAFKA_TOPIC")).expect("a publisher");
    let [first, second] = copies();
    let [kept, dropped] = [&first, &second].map(|copy| Identity::of(copy).content.to_string());

    // The ingestor processes the first copy, then the second copy. The keys of the copies are on different partitions.
    let ingestor = installation.start("ingestor");
    publisher.publish(vec![message(&first, "user-1")]).await.expect("published");
    until(&installation, "the first copy is stored", "SELECT count(*) FROM events_raw", 1).await;
    let beginning = Mutex::new(None);
    set_position(&installation, |event| {
        let SourceEvent::Records(records) = event else { return None };
        let Record { partition, offset, .. } = records.into_iter().next()?;
        *beginning.lock().expect("not poisoned") = Some(Position { partition: partition.clone(), next_offset: offset });
        Some(Position { partition, next_offset: offset + 1 })
    })
    .await;
    publisher.publish(vec![message(&second, "user-2")]).await.expect("published");
    let conflicts = "SELECT count(*) FROM event_conflict";
    until(&installation, "the second copy is dropped", conflicts, 1).await;

    // The aggregator processes the second copy, and the first copy only later.
    let mut aggregator = installation.start("aggregator");
    until(&installation, "the second copy is counted", COUNTED, 11).await;
    until(&installation, "the totals contain the stored copy", COUNTED, 7).await;
    eventually(PATIENCE, "the repair is counted", async || {
        let (_, metrics) = installation.ops("aggregator", "/metrics").await?;
        let days = metrics.lines().find_map(|line| line.strip_prefix("netagg_repaired_days_total "));
        if days.is_some_and(|days| days != "0") { Ok(()) } else { Err(format!("{days:?} days")) }
    })
    .await;
    aggregator.terminate();
    assert_eq!(aggregator.code(PATIENCE).await, 0);
    set_position(&installation, |event| match event {
        SourceEvent::Assigned(_) => beginning.lock().expect("not poisoned").take(),
        _ => None,
    })
    .await;
    let _aggregator = installation.start("aggregator");
    let done = "SELECT coalesce(sum(upper(range) - lower(range)), 0)::bigint \
                FROM consumer_progress, unnest(done) AS range WHERE service = 'aggregator'";
    until(&installation, "the aggregator has processed both copies", done, 2).await;
    until(&installation, "nothing is left to repair", "SELECT count(*) FROM agg_dirty_day", 0).await;
    assert_eq!(installation.value::<i64>(COUNTED).await, 7);
    assert_eq!(
        installation.value::<i64>("SELECT count(*) FROM agg_day").await,
        1,
        "the totals of the other copy's day are gone"
    );

    // The audit and the log report both contents and the position of the dropped copy.
    let json = installation.run("netagg", &["audit", "--json"]).await;
    assert_eq!(json.code, 0, "{}{}", json.stdout, json.stderr);
    let audit: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let conflict = &audit["conflicts"]["first"][0];
    assert_eq!((&audit["verdict"], &audit["conflicts"]["count"]), (&"equal".into(), &1.into()), "{audit}");
    assert_eq!(
        (&conflict["kept"]["content"], &conflict["dropped"]["content"]),
        (&kept.clone().into(), &dropped.clone().into())
    );
    let day = |copy: &Event| Value::from(copy.fields().started_at.day().to_string());
    assert_eq!((&conflict["kept"]["day"], &conflict["dropped"]["day"]), (&day(&first), &day(&second)));
    let fields = first.fields();
    assert_eq!(conflict["source_id"], fields.source_id.as_str());
    assert_eq!(conflict["event_id"], fields.event_id.to_string());
    let message = installation.messages().await.into_iter().find(|found| found.key.as_deref() == Some(b"user-2"));
    let Record { partition, offset, .. } = message.expect("the message of the second copy");
    assert_eq!(
        (&conflict["topic"], &conflict["partition"]),
        (&(*partition.topic).into(), &partition.number.into()),
        "{conflict}"
    );
    assert_eq!(conflict["offset"], offset);

    let position = format!("{partition}/{offset}");
    let text = installation.run("netagg", &["audit"]).await;
    for shown in [&fields.event_id.to_string(), &kept, &dropped, &position] {
        assert!(text.stdout.contains(shown), "{shown} in {}", text.stdout);
    }
    let log = ingestor.stderr();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let samples: Vec<_> = lines.filter(|line| line["dropped"].is_string()).collect();
    let [sample] = &samples[..] else { panic!("one sample in {log}") };
    assert_eq!(
        [&sample["level"], &sample["kept"], &sample["dropped"], &sample["position"], &sample["key"]],
        ["WARN", &kept, &dropped, &position, &first.key().to_string()]
    );
}

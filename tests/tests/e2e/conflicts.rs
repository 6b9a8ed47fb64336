//! One identity with two contents, which the two services meet in opposite orders.

use std::sync::Mutex;

use bytes::Bytes;
use netagg_core::ports::{EventPublisher, EventSource, SourceEvent};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Event, EventType, Identity, OutgoingRecord, Position, Record};
use netagg_kafka::{KafkaConfig, KafkaPublisher, KafkaSource};
use netagg_testkit::eventually;
use serde_json::Value;

use super::installation::{Installation, PATIENCE};

/// Two days and types of one identity.
fn copies() -> [Event; 2] {
    let now = chrono::Utc::now();
    let copy = |days: i64, event_type, bytes_up| {
        let started_at = (now - chrono::Duration::days(days)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        event(EventTemplate { started_at: &started_at, event_type, bytes_up, ..EventTemplate::default() })
    };
    [copy(1, EventType::Data, 7), copy(40, EventType::CallIn, 11)]
}

/// The message of `event`; the key decides the partition.
fn message(event: &Event, key: &'static str) -> OutgoingRecord {
    let key = Some(Bytes::from_static(key.as_bytes()));
    OutgoingRecord { key, value: Some(event.encode().into()), headers: Vec::new() }
}

/// Reads as the aggregator's group until `found` has what it looks for, and commits the position that it gives.
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

async fn value(installation: &Installation, query: &'static str) -> i64 {
    let pool = installation.pool().await;
    let value = sqlx::query_scalar(query).fetch_one(&pool).await.expect("a value");
    pool.close().await;
    value
}

async fn until(installation: &Installation, what: &str, query: &'static str, wanted: i64) {
    eventually(PATIENCE, what, async || {
        let found = value(installation, query).await;
        if found == wanted { Ok(()) } else { Err(found.to_string()) }
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

    // The ingestor meets the first copy, then the second one. These keys lie on different ones of eight partitions.
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

    // The aggregator meets the second one, and the first one only later.
    let mut aggregator = installation.start("aggregator");
    until(&installation, "the second copy is counted", COUNTED, 11).await;
    until(&installation, "the totals follow the stored copy", COUNTED, 7).await;
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
    until(&installation, "the aggregator has met both", done, 2).await;
    until(&installation, "nothing is left to repair", "SELECT count(*) FROM agg_dirty_day", 0).await;
    assert_eq!(value(&installation, COUNTED).await, 7);
    assert_eq!(
        value(&installation, "SELECT count(*) FROM agg_day").await,
        1,
        "nothing is left of the other copy's day"
    );

    // Both contents and the place of the dropped one are told, by the audit and in the log.
    let json = installation.run("netagg", &["audit", "--json"]).await;
    assert_eq!(json.code, 0, "{}{}", json.stdout, json.stderr);
    let audit: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let told = &audit["conflicts"]["first"][0];
    assert_eq!((&audit["verdict"], &audit["conflicts"]["count"]), (&"equal".into(), &1.into()), "{audit}");
    assert_eq!(
        (&told["kept"]["content"], &told["dropped"]["content"]),
        (&kept.clone().into(), &dropped.clone().into())
    );
    let day = |copy: &Event| Value::from(copy.fields().started_at.day().to_string());
    assert_eq!((&told["kept"]["day"], &told["dropped"]["day"]), (&day(&first), &day(&second)));
    let fields = first.fields();
    assert_eq!(told["source_id"], fields.source_id.as_str());
    assert_eq!(told["event_id"], fields.event_id.to_string());
    let lies = installation.messages().await.into_iter().find(|found| found.key.as_deref() == Some(b"user-2"));
    let Record { partition, offset, .. } = lies.expect("the message of the second copy");
    assert_eq!((&told["topic"], &told["partition"]), (&(*partition.topic).into(), &partition.number.into()), "{told}");
    assert_eq!(told["offset"], offset);

    let place = format!("{partition}/{offset}");
    let text = installation.run("netagg", &["audit"]).await;
    for shown in [&fields.event_id.to_string(), &kept, &dropped, &place] {
        assert!(text.stdout.contains(shown), "{shown} in {}", text.stdout);
    }
    let log = ingestor.stderr();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let samples: Vec<_> = lines.filter(|line| line["dropped"].is_string()).collect();
    let [sample] = &samples[..] else { panic!("one sample in {log}") };
    assert_eq!(
        [&sample["level"], &sample["kept"], &sample["dropped"], &sample["place"], &sample["key"]],
        ["WARN", &kept, &dropped, &place, &first.key().to_string()]
    );
}

//! One identity with two contents, which the two services meet in opposite orders.

use std::sync::Mutex;

use bytes::Bytes;
use netagg_core::ports::{EventPublisher, EventSource, SourceEvent};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{EventType, OutgoingRecord, Position, Record};
use netagg_kafka::{KafkaConfig, KafkaPublisher, KafkaSource};
use netagg_tests::eventually;

use super::installation::{Installation, PATIENCE};

/// Two days and types; the key decides the partition.
fn copies() -> [OutgoingRecord; 2] {
    let now = chrono::Utc::now();
    let copy = |days: i64, event_type, bytes_up, key: &'static str| {
        let started_at = (now - chrono::Duration::days(days)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let template = EventTemplate { started_at: &started_at, event_type, bytes_up, ..EventTemplate::default() };
        OutgoingRecord {
            key: Some(Bytes::from_static(key.as_bytes())),
            value: Some(event(template).encode().into()),
            headers: Vec::new(),
        }
    };
    // These keys lie on different ones of eight partitions.
    [copy(1, EventType::Data, 7, "user-1"), copy(40, EventType::CallIn, 11, "user-2")]
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

    // The ingestor meets the first copy, then the second one.
    let _ingestor = installation.start("ingestor");
    publisher.publish(vec![first]).await.expect("published");
    until(&installation, "the first copy is stored", "SELECT count(*) FROM events_raw", 1).await;
    let beginning = Mutex::new(None);
    set_position(&installation, |event| {
        let SourceEvent::Records(records) = event else { return None };
        let Record { partition, offset, .. } = records.into_iter().next()?;
        *beginning.lock().expect("not poisoned") = Some(Position { partition: partition.clone(), next_offset: offset });
        Some(Position { partition, next_offset: offset + 1 })
    })
    .await;
    publisher.publish(vec![second]).await.expect("published");
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
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}{}", audit.stdout, audit.stderr);
    assert!(audit.stdout.contains("00000000-0000-0000-0000-000000000001"), "it is listed: {}", audit.stdout);
}

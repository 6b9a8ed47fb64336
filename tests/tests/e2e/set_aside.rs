//! A month whose partition cannot be created: only its own events wait.

use netagg_core::OutgoingRecord;
use netagg_core::ports::EventPublisher;
use netagg_core::testkit::{EventTemplate, event};
use netagg_kafka::KafkaPublisher;
use netagg_testkit::eventually;

use super::installation::{Installation, PATIENCE};

fn message(id: u128, started_at: &str) -> OutgoingRecord {
    let user = format!("user-{}", id % 20);
    let event = event(EventTemplate { id, user: &user, started_at, ..EventTemplate::default() });
    OutgoingRecord::new(event.encode()).with_key(user)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_without_a_partition_delays_only_its_own_events() {
    let installation = Installation::new().await;
    let pool = installation.pool().await;
    let this_month = chrono::Utc::now().format("%Y-%m").to_string();
    let day = format!("{this_month}-01T00:00:01Z");
    let months_before = |months| {
        let at = chrono::Utc::now().date_naive().checked_sub_months(chrono::Months::new(months)).expect("in range");
        at.format("%Y-%m").to_string()
    };
    // An operator has detached a month. Another partition overlaps the next month.
    let (detached, overlapped) = (months_before(3), months_before(2));
    let end = format!("{overlapped}-01");
    let table = format!("events_raw_{}", detached.replace('-', "_"));
    for statement in [
        format!("CREATE TABLE {table} (LIKE events_raw INCLUDING ALL)"),
        format!("CREATE TABLE part PARTITION OF events_raw FOR VALUES FROM ('{end} 12:00Z') TO ('{end} 13:00Z')"),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.expect("made");
    }
    let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let mut records: Vec<_> = (1..=40).map(|id| message(id, &day)).collect();
    records.insert(20, message(100, &format!("{detached}-15T12:00:00Z")));
    records.insert(10, message(101, &format!("{overlapped}-01T12:30:00Z")));
    records.insert(5, message(102, &format!("{overlapped}-01T13:30:00Z")));
    let publisher =
        KafkaPublisher::new(&installation.kafka(), installation.variable("KAFKA_TOPIC")).expect("a publisher");
    publisher.publish(records).await.expect("published");

    let stored = async || -> (i64, i64) {
        let query = "SELECT (SELECT count(*) FROM events_raw), (SELECT count(*) FROM events_set_aside)";
        sqlx::query_as(query).fetch_one(&pool).await.expect("counts")
    };
    eventually(PATIENCE, "all but two events are stored", async || {
        let counts = stored().await;
        if counts == (41, 2) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    eventually(PATIENCE, "readiness names both months", async || {
        let (status, body) = installation.ops("ingestor", "/readyz").await?;
        let named = [&detached, &overlapped].iter().all(|month| body.contains(&format!("1 events of {month}")));
        if status == 200 && named { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    let (_, metrics) = installation.ops("ingestor", "/metrics").await.expect("metrics");
    assert!(metrics.contains("\nnetagg_events_set_aside 2\n"), "{metrics}");
    let listed = installation.run("netagg", &["partitions", "list"]).await;
    assert!(listed.stdout.contains(&format!("set aside: 1 events of {detached}")), "{}", listed.stdout);
    let audit = installation.run("netagg", &["audit"]).await;
    assert!(audit.stdout.contains(&format!("1 events of {detached} are set aside")), "{}", audit.stdout);
    assert_eq!(audit.code, 1, "the totals count events that events_raw lacks: {}", audit.stdout);
    // A rebuild uses only events_raw, which does not contain the events that are set aside.
    let (from, to) = (format!("{detached}-15"), format!("{overlapped}-01"));
    let rebuilt = installation.run("netagg", &["rebuild", "--from", &from, "--to", &to]).await;
    assert_eq!(rebuilt.code, 0, "{}\n{}", rebuilt.stdout, rebuilt.stderr);

    // After the tables are repaired, the events of both months are stored, and the totals become exact.
    for statement in [format!("DROP TABLE {table}"), "DROP TABLE part".to_owned()] {
        if statement.ends_with("part") {
            // A larger partition replaces this partition and keeps its event.
            let larger = format!(
                "BEGIN; ALTER TABLE events_raw DETACH PARTITION part; \
                 CREATE TABLE larger (LIKE events_raw INCLUDING ALL); INSERT INTO larger SELECT * FROM part; \
                 ALTER TABLE events_raw ATTACH PARTITION larger FOR VALUES FROM ('{end}Z') TO ('{end} 23:00Z'); COMMIT"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(larger)).execute(&pool).await.expect("replaced");
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.expect("dropped");
    }
    installation.readiness_without(&["partitions"], "ingestor").await;
    assert_eq!(stored().await, (43, 0));
    installation.eventually_exact(43).await;
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}\n{}", audit.stdout, audit.stderr);
    pool.close().await;
}

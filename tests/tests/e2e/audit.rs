//! `netagg audit` and `netagg rebuild`.

use std::time::{Duration, Instant};

use netagg_testkit::{eventually, unique};
use serde_json::Value;

use super::installation::{Ended, Installation, PATIENCE, figure};

/// An installation that has stored and counted the events of a generator, the number of events, and the report of an audit.
async fn drained() -> (Installation, i64, Value) {
    let installation = Installation::new().await;
    let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let mut generator = installation.generator(&[
        ("GENERATOR_EVENTS_PER_SEC", "2000"),
        ("GENERATOR_DURATION", "2s"),
        ("GENERATOR_DUPLICATE_RATE", "0.1"),
        ("GENERATOR_INVALID_RATE", "0.05"),
        ("GENERATOR_VERIFY_INTERVAL", "1s"),
    ]);
    let code = generator.code(PATIENCE).await;
    assert_eq!(code, 0, "{}\n{}", generator.stdout(), generator.stderr());
    let events = figure(&generator.stdout(), "events_sent").parse().expect("a number");
    installation.drained_and_exact(events).await;
    // The services commit their last offsets to the broker a little later.
    let audit = eventually(PATIENCE, "no group has a lag", async || {
        let audit = document(&installation.run("netagg", &["audit", "--json"]).await);
        let lags: Vec<_> = audit["partitions"].as_array().expect("partitions").iter().map(|row| &row["lag"]).collect();
        if lags.iter().all(|lag| **lag == 0) { Ok(audit) } else { Err(audit.to_string()) }
    })
    .await;
    (installation, events, audit)
}

async fn execute(installation: &Installation, statements: &'static str) {
    let pool = installation.pool().await;
    sqlx::raw_sql(statements).execute(&pool).await.expect("executed");
    pool.close().await;
}

fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_a_difference_and_a_rebuild_corrects_it() {
    let (installation, events, audit) = drained().await;
    assert_eq!((&audit["verdict"], &audit["events"]), (&"equal".into(), &events.into()), "{audit}");
    assert_eq!((&audit["broker"]["compared"], &audit["mode"]), (&true.into(), &"separate".into()));
    let sum = |service: &str, field: &str| -> i64 {
        let partitions = audit["partitions"].as_array().expect("partitions").iter();
        partitions.filter(|row| row["service"] == service).map(|row| row[field].as_i64().expect("a number")).sum()
    };
    for service in ["ingestor", "aggregator"] {
        assert_eq!(sum(service, "accepted"), events, "{audit}");
        assert!(sum(service, "duplicates") > 0 && sum(service, "invalid") > 0, "{audit}");
        assert_eq!((sum(service, "unaccounted"), sum(service, "in_flight")), (0, 0), "{audit}");
        assert_eq!(
            sum(service, "done"),
            sum(service, "accepted") + sum(service, "duplicates") + sum(service, "invalid") + sum(service, "vacant")
                - sum(service, "redelivered"),
        );
    }
    let text = installation.run("netagg", &["audit"]).await;
    assert_eq!(text.code, 0, "{}", text.stderr);
    assert!(text.stdout.contains(&format!("{events} events")) && text.stdout.contains("Equal"), "{}", text.stdout);

    let _api = installation.start("api");
    installation.readiness("api", 200).await;
    execute(&installation, "UPDATE agg_day SET count_events = count_events + 17 WHERE type = 'DATA' AND day = (SELECT max(day) FROM agg_day WHERE type = 'DATA')").await;
    let day = installation.value::<String>("SELECT max(day)::text FROM agg_day WHERE type = 'DATA'").await;
    let wrong = installation
        .value::<String>("SELECT count_events::text FROM agg_day WHERE type = 'DATA' ORDER BY day DESC LIMIT 1")
        .await;
    let path = format!("/api/v1/aggregates?granularity=DAY&from={day}&to={day}&type=DATA");
    let answer = installation.api(&path).await.expect("a response").1;
    assert_eq!(answer["data"][0]["count_events"].to_string(), wrong, "the wrong total is cached now");

    let text = installation.run("netagg", &["audit"]).await;
    assert_eq!(text.code, 1, "{}", text.stdout);
    for shown in
        [&*day, "DATA", "count_events", &*wrong, "DIFFERENT", &*format!("netagg rebuild --from {day} --to {day}")]
    {
        assert!(text.stdout.contains(shown), "{shown} in {}", text.stdout);
    }
    let json = document(&installation.run("netagg", &["audit", "--json", "--from", &day]).await);
    assert_eq!(json["verdict"], "different");
    let difference = &json["totals"][0];
    assert_eq!(difference["in_totals"].as_i64(), difference["by_events"].as_i64().map(|count| count + 17), "{json}");
    assert_eq!((&difference["table"], &difference["date"]), (&"agg_day".into(), &day.clone().into()));

    let dry = installation.run("netagg", &["rebuild", "--from", &day, "--to", &day, "--dry-run"]).await;
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    assert!(dry.stdout.contains(&wrong) && dry.stdout.contains("1 would change"), "{}", dry.stdout);
    assert_eq!(installation.run("netagg", &["audit"]).await.code, 1, "the dry run has changed nothing");

    let rebuilt = installation.run("netagg", &["rebuild", "--from", "2020-01-01", "--to", &day]).await;
    assert_eq!(rebuilt.code, 0, "{}", rebuilt.stderr);
    assert!(rebuilt.stdout.contains(&wrong) && rebuilt.stdout.contains("1 changed"), "{}", rebuilt.stdout);
    assert!(!rebuilt.stdout.contains("cache"), "{}", rebuilt.stdout);
    assert_eq!(installation.run("netagg", &["audit"]).await.code, 0);
    let answer = installation.api(&path).await.expect("a response").1;
    assert_ne!(answer["data"][0]["count_events"].to_string(), wrong, "the rebuild has invalidated the cached total");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_names_the_partition_and_the_offsets_of_lost_records() {
    let (installation, ..) = drained().await;
    // The group of the ingestor has committed these offsets, but the ingestor has never processed them.
    execute(
        &installation,
        "UPDATE consumer_progress SET done = done - '{[10,13)}', accepted = accepted - 3 WHERE service = 'ingestor' AND partition = 3",
    )
    .await;
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 1, "{}", audit.stdout);
    let topic = installation.variable("KAFKA_TOPIC");
    let lost = format!("ingestor, {topic}/3: lost offsets, committed but never processed: 10 to 12");
    assert!(audit.stdout.contains(&lost), "{lost} in {}", audit.stdout);
    let json = document(&installation.run("netagg", &["audit", "--json"]).await);
    let lossy: Vec<_> = json["partitions"]
        .as_array()
        .expect("partitions")
        .iter()
        .filter(|row| row["lost_offsets"] != Value::Array(vec![]))
        .collect();
    assert_eq!((lossy.len(), &lossy[0]["partition"]), (1, &3.into()), "{json}");
    assert_eq!((&lossy[0]["lost_offsets"][0]["first"], &lossy[0]["lost_offsets"][0]["last"]), (&10.into(), &12.into()));
    execute(
        &installation,
        "UPDATE consumer_progress SET done = done + '{[10,13)}', accepted = accepted + 4 WHERE service = 'ingestor' AND partition = 3",
    )
    .await;
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 1, "{}", audit.stdout);
    assert!(audit.stdout.contains(&format!("ingestor, {topic}/3: 1 records")), "{}", audit.stdout);
    assert!(audit.stdout.contains("counted twice"), "{}", audit.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_and_rebuild_give_the_reason_if_they_cannot_decide_or_change_a_day() {
    let mut installation = Installation::new().await;
    for (arguments, shown) in [
        (&["audit", "--from", "2025-10-21", "--to", "2025-10-20"][..], "--from 2025-10-21 --to 2025-10-20"),
        (&["audit", "--from", "2025-02-30"], "2025-02-30"),
        (&["audit", "--to", "yesterday"], "YYYY-MM-DD"),
        (&["audit", "--wait", "5"], "an integer and a unit"),
        (&["rebuild", "--from", "2025-10-20"], "--to"),
        (&["rebuild", "--from", "2025-10-21", "--to", "2025-10-20"], "--from 2025-10-21 --to 2025-10-20"),
    ] {
        let ended = installation.run("netagg", arguments).await;
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(shown), "{shown} in {}", ended.stderr);
    }
    let nothing = installation.run("netagg", &["rebuild", "--from", "2025-10-20", "--to", "2025-10-20"]).await;
    assert_eq!(nothing.code, 0, "{}", nothing.stderr);
    assert_eq!(installation.run("netagg", &["audit"]).await.code, 0, "an empty database is equal");

    // An event is counted and not stored, so the correct total of this day is not known yet.
    execute(
        &installation,
        "INSERT INTO agg_identity VALUES (gen_random_uuid(), 1, '2025-10-20');
         INSERT INTO consumer_progress (service, topic, partition, done, accepted) VALUES ('aggregator', 'other', 0, '{[0,1)}', 1)",
    )
    .await;
    let audit = installation.run("netagg", &["audit", "--wait", "100ms"]).await;
    assert_eq!(audit.code, 2, "{}", audit.stdout);
    let unstored = "its totals contain 1 events that the ingestor has not stored yet";
    assert!(audit.stdout.contains(&format!("2025-10-20: could not tell: {unstored}")), "{}", audit.stdout);
    let rebuilt =
        installation.run("netagg", &["rebuild", "--from", "2025-10-20", "--to", "2025-10-20", "--wait", "100ms"]).await;
    assert_eq!(rebuilt.code, 1, "{}", rebuilt.stdout);
    assert!(rebuilt.stdout.contains(&format!("2025-10-20: skipped: {unstored}")), "{}", rebuilt.stdout);

    // The time to wait is for the whole command, not for each month and step.
    execute(
        &installation,
        "INSERT INTO agg_identity SELECT gen_random_uuid(), 1, day::date
         FROM generate_series(date '2025-01-20', date '2025-09-20', interval '1 month') day",
    )
    .await;
    let begun = Instant::now();
    let months = ["rebuild", "--from", "2025-01-01", "--to", "2025-10-31", "--wait", "4s"];
    let rebuilt = installation.run("netagg", &months).await;
    assert_eq!(rebuilt.code, 1, "{}", rebuilt.stdout);
    assert!(rebuilt.stdout.contains("2025-01-20: skipped") && rebuilt.stdout.contains("2025-10-20: skipped"));
    assert!(begun.elapsed() < Duration::from_secs(35), "{:?} for ten months", begun.elapsed());
    execute(&installation, "DELETE FROM agg_identity WHERE day < '2025-10-01'").await;

    execute(&installation, "INSERT INTO settings (name, value) VALUES ('dropped_through', '2025-10')").await;
    let refused = installation.run("netagg", &["rebuild", "--from", "2025-10-20", "--to", "2025-11-20"]).await;
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    assert!(refused.stderr.contains("2025-10") && refused.stderr.contains("2025-11-01"), "{}", refused.stderr);
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}", audit.stdout);
    assert!(audit.stdout.contains("Left out: the months up to 2025-10"), "{}", audit.stdout);

    // Without the broker, the audit checks only the database. Without the database, it cannot tell.
    installation.set("KAFKA_BROKERS", "127.0.0.1:1");
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}", audit.stdout);
    assert!(audit.stdout.contains("Not compared with the broker: "), "{}", audit.stdout);
    installation.set("DATABASE_URL", &format!("postgres://app_user@127.0.0.1:1/{}", unique("nowhere")));
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 2, "{}", audit.stdout);
    assert!(audit.stderr.contains("could not tell: postgres is unavailable"), "{}", audit.stderr);
}

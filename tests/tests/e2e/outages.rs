//! Services that go away and come back: waited for, told, and nothing lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use netagg_core::EventLimits;
use netagg_testkit::{eventually, kafka, postgres, redis};

use super::installation::{Installation, PATIENCE, figure};
use crate::support::programs::Process;

/// It goes on until the test ends it: how long an outage lasts depends on the machine.
pub(super) const LOAD: [(&str, &str); 5] = [
    ("GENERATOR_EVENTS_PER_SEC", "500"),
    ("GENERATOR_DURATION", "0"),
    ("GENERATOR_DUPLICATE_RATE", "0.1"),
    ("GENERATOR_INVALID_RATE", "0.05"),
    ("GENERATOR_VERIFY_INTERVAL", "1s"),
];

async fn stored(installation: &Installation) -> Result<i64, String> {
    let pool = installation.pool().await;
    let count = sqlx::query_scalar("SELECT count(*) FROM events_raw").fetch_one(&pool).await;
    pool.close().await;
    count.map_err(|error| error.to_string())
}

pub(super) async fn more_than(installation: &Installation, events: i64) -> i64 {
    eventually(PATIENCE, &format!("more than {events} events are stored"), async || {
        let count = stored(installation).await?;
        if count > events { Ok(count) } else { Err(count.to_string()) }
    })
    .await
}

/// Waits until the generator has found each event that it sent stored once; how many there were.
async fn finished(generator: &mut Process) -> i64 {
    let code = generator.code(2 * PATIENCE).await;
    let report = generator.stdout();
    assert_eq!(code, 0, "{report}\n{}", generator.stderr());
    let sent = figure(&report, "events_sent");
    assert_eq!(figure(&report, "events_verified"), sent, "{report}");
    assert_eq!(figure(&report, "events_failed"), "0", "{report}");
    assert_eq!(figure(&report, "success_rate"), "100.00%", "{report}");
    sent.parse().expect("a number")
}

/// Stops the generator, and checks that nothing of what the broker took of it is lost or doubled: events, totals, dead
/// letters, and what `netagg audit` says.
pub(super) async fn withstood(installation: &Installation, generator: &mut Process) {
    generator.terminate();
    // The code tells whether all was stored at the moment of the stop.
    let code = generator.code(PATIENCE).await;
    let report = generator.stdout();
    assert!(matches!(code, 0 | 1), "{report}\n{}", generator.stderr());
    let sent: usize = figure(&report, "events_sent").parse().expect("a number");
    let limits = EventLimits::default();
    let (mut keys, mut places) = (BTreeSet::new(), BTreeSet::new());
    for message in installation.messages().await {
        match limits.admit(&message) {
            Ok(event) => drop(keys.insert(event.key())),
            Err(_) => drop(places.insert((message.partition.number, message.offset))),
        }
    }
    assert!(keys.len() >= sent, "the topic has {} of {sent} events that the broker took", keys.len());
    assert!(!places.is_empty(), "the generator sends invalid messages, too");
    installation.drained_and_exact(keys.len() as i64).await;
    eventually(PATIENCE, "exactly these messages have their dead letters", async || {
        let letters = installation.dead_letters().await;
        if letters == places { Ok(()) } else { Err(format!("{} of {}", letters.len(), places.len())) }
    })
    .await;
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}\n{}", audit.stdout, audit.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_absent_at_the_start_stopped_and_crashed_is_waited_for() {
    let server = postgres::Server::start().await;
    let installation = Installation::on(&server.url(), &kafka::brokers().await, &redis::url().await);
    installation.set_up().await;
    server.stop().await;
    let mut services = ["ingestor", "aggregator", "api"].map(|name| installation.start(name));
    for name in ["ingestor", "aggregator", "api"] {
        let report = installation.readiness(name, 503).await;
        assert!(report["dependencies"]["postgres"].is_string() && report["since"]["postgres"].is_string(), "{report}");
        assert_eq!(installation.ops(name, "/healthz").await.expect("alive").0, 200);
    }
    // On the port that a load balancer knows, too.
    let http = installation.variable("API_HTTP_PORT").to_owned();
    let health = async |path: &str, expected: u16| {
        let url = format!("http://127.0.0.1:{http}{path}");
        eventually(PATIENCE, path, async || match reqwest::get(&url).await {
            Ok(answer) if answer.status() == expected => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    };
    health("/healthz", 200).await;
    health("/readyz", 503).await;
    health("/api/v1/aggregates?granularity=DAY", 503).await;
    server.start_again().await;
    for name in ["ingestor", "aggregator", "api"] {
        installation.readiness(name, 200).await;
    }
    health("/readyz", 200).await;
    health("/api/v1/aggregates?granularity=DAY", 200).await;

    let mut generator = installation.generator(&LOAD);
    let before = more_than(&installation, 1_000).await;
    server.stop().await;
    for name in ["ingestor", "aggregator", "api"] {
        installation.readiness(name, 503).await;
    }
    // A server that refuses connections is told at once, and by name.
    let quickly = async || {
        let begun = Instant::now();
        let path = "/api/v1/aggregates?granularity=DAY&from=2024-01-01&to=2024-01-02";
        let (status, problem) = installation.api(path).await.expect("an answer");
        assert_eq!(status, 503, "{problem}");
        if begun.elapsed() < Duration::from_secs(1) { Ok(()) } else { Err(format!("{:?}", begun.elapsed())) }
    };
    eventually(PATIENCE, "an answer within a second", quickly).await;
    health("/readyz", 503).await;
    health("/healthz", 200).await;
    for name in ["ingestor", "aggregator", "api"] {
        eventually(PATIENCE, "the reason", async || {
            let report = installation.readiness(name, 503).await;
            let reason = report["dependencies"]["postgres"].as_str().unwrap_or_default();
            if reason.contains("Connection refused") { Ok(()) } else { Err(report.to_string()) }
        })
        .await;
    }
    server.start_again().await;
    let between = more_than(&installation, before + 1_000).await;
    server.crash().await;
    server.start_again().await;
    more_than(&installation, between + 500).await;

    withstood(&installation, &mut generator).await;
    for service in &mut services {
        assert!(service.is_running(), "{}", service.stderr());
        let lines = service.stderr().lines().count();
        assert!(lines < 200, "an outage is told, not repeated: {lines} lines\n{}", service.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_absent_at_the_start_crashed_and_frozen_is_waited_for() {
    let broker = kafka::Broker::start().await;
    let database = postgres::database().await;
    let mut installation = Installation::on(database.url(), &broker.brokers(), &redis::url().await);
    // A producer that has lost its brokers is given up after this time.
    installation.set("KAFKA_OPT_MESSAGE_TIMEOUT_MS", "10000");
    installation.set_up().await;
    broker.stop().await;
    let mut services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    for name in ["ingestor", "aggregator"] {
        let report = installation.readiness(name, 503).await;
        assert!(
            report["dependencies"]["kafka"].is_string() || report["dependencies"]["postgres"].is_string(),
            "{report}"
        );
    }
    broker.start_again().await;
    for name in ["ingestor", "aggregator"] {
        installation.readiness(name, 200).await;
    }
    let mut generator = installation.generator(&LOAD);
    let before = more_than(&installation, 1_000).await;
    broker.crash().await;
    for name in ["ingestor", "aggregator"] {
        installation.readiness(name, 503).await;
    }
    broker.start_again().await;
    more_than(&installation, before + 1_000).await;
    broker.pause().await;
    for name in ["ingestor", "aggregator"] {
        let report = installation.readiness(name, 503).await;
        assert!(report["dependencies"]["kafka"].is_string(), "{report}");
    }
    let frozen = stored(&installation).await.expect("a count");
    broker.resume().await;
    for name in ["ingestor", "aggregator"] {
        installation.readiness(name, 200).await;
    }
    more_than(&installation, frozen).await;
    withstood(&installation, &mut generator).await;
    for service in &mut services {
        assert!(service.is_running(), "{}", service.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_everything_still_answers() {
    let server = redis::Server::start().await;
    let database = postgres::database().await;
    let installation = Installation::on(database.url(), &kafka::brokers().await, &server.url());
    installation.set_up().await;
    server.stop().await;
    let services = ["ingestor", "aggregator", "api"].map(|name| installation.start(name));
    let mut generator = installation.generator(&[("GENERATOR_DURATION", "3s")]);
    let sent = finished(&mut generator).await;
    installation.drained_and_exact(sent).await;
    for name in ["aggregator", "api"] {
        let report = installation.readiness(name, 200).await;
        assert!(report["notes"]["redis"].is_string(), "{report}");
    }
    totals(&installation, sent).await;

    // Back, hung, and flushed: answers stay right.
    server.start_again().await;
    totals(&installation, sent).await;
    totals(&installation, sent).await;
    let mut generator = installation.generator(&[("GENERATOR_DURATION", "2s")]);
    server.pause().await;
    let more = finished(&mut generator).await;
    totals(&installation, sent + more).await;
    server.resume().await;
    totals(&installation, sent + more).await;
    drop(services);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_hung_database_and_a_second_signal_for_nothing() {
    let server = postgres::Server::start().await;
    let installation = Installation::on(&server.url(), &kafka::brokers().await, &redis::url().await);
    installation.set_up().await;
    let [mut ingestor, mut aggregator] = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let mut generator = installation.generator(&LOAD);
    more_than(&installation, 1_000).await;
    server.pause().await;
    // Batches in flight now wait for a server that does not answer.
    for name in ["ingestor", "aggregator"] {
        installation.readiness(name, 503).await;
    }
    ingestor.terminate();
    aggregator.terminate();
    eventually(PATIENCE, "the ingestor is stopping", async || {
        if ingestor.stderr().contains("stopping") { Ok(()) } else { Err(ingestor.stderr()) }
    })
    .await;
    assert!(ingestor.is_running(), "it waits for what is in flight");
    ingestor.terminate();
    assert_eq!(ingestor.code(Duration::from_secs(5)).await, 143);
    assert_eq!(aggregator.code(Duration::from_secs(30)).await, 0, "{}", aggregator.stderr());

    // What was abandoned is delivered again.
    server.resume().await;
    let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    withstood(&installation, &mut generator).await;
}

/// Waits until the API answers totals of `events` events.
async fn totals(installation: &Installation, events: i64) {
    eventually(PATIENCE, "the API answers the totals", async || {
        let range = "granularity=DAY&from=2020-01-01&to=2029-12-28";
        let (status, answer) = installation.api(&format!("/api/v1/aggregates?{range}")).await?;
        if status != 200 {
            return Err(answer.to_string());
        }
        let sum: i64 =
            answer["data"].as_array().into_iter().flatten().filter_map(|row| row["count_events"].as_i64()).sum();
        if sum == events { Ok(()) } else { Err(format!("{sum} of {events}")) }
    })
    .await;
}

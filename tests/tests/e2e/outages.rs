//! Outages of the servers: the services wait, report the outage, and lose nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use netagg_core::EventLimits;
use netagg_testkit::{eventually, kafka, postgres, redis};

use super::installation::{Installation, PATIENCE, figure};
use crate::support::programs::Process;

/// The load of the generator. It runs until the test stops it, because the duration of an outage depends on the machine.
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

/// Waits until the generator has verified that each sent event is stored once. Returns the number of events.
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

/// Stops the generator. Then checks events, totals, dead letters and the verdict of `netagg audit`: of the messages that the
/// broker accepted, nothing is lost or doubled.
pub(super) async fn withstood(installation: &Installation, generator: &mut Process) {
    generator.terminate();
    // The exit code shows whether all events were stored at the moment of the stop.
    let code = generator.code(PATIENCE).await;
    let report = generator.stdout();
    assert!(matches!(code, 0 | 1), "{report}\n{}", generator.stderr());
    let sent: usize = figure(&report, "events_sent").parse().expect("a number");
    let limits = EventLimits::default();
    let (mut keys, mut positions) = (BTreeSet::new(), BTreeSet::new());
    for message in installation.messages().await {
        match limits.admit(&message) {
            Ok(event) => drop(keys.insert(event.key())),
            Err(_) => drop(positions.insert((message.partition.number, message.offset))),
        }
    }
    assert!(keys.len() >= sent, "the topic has {} of {sent} events that the broker accepted", keys.len());
    assert!(!positions.is_empty(), "the generator sends invalid messages, too");
    installation.drained_and_exact(keys.len() as i64).await;
    eventually(PATIENCE, "exactly these messages have their dead letters", async || {
        let dead_letters = installation.dead_letters().await;
        if dead_letters == positions { Ok(()) } else { Err(format!("{} of {}", dead_letters.len(), positions.len())) }
    })
    .await;
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}\n{}", audit.stdout, audit.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_postgres_at_their_start_and_after_a_stop_and_a_crash() {
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
    // The health paths also work on the HTTP port, which a load balancer uses.
    let http = installation.variable("API_HTTP_PORT").to_owned();
    let health = async |path: &str, expected: u16| {
        let url = format!("http://127.0.0.1:{http}{path}");
        eventually(PATIENCE, path, async || match reqwest::get(&url).await {
            Ok(response) if response.status() == expected => Ok(()),
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
    // If a server refuses connections, the API responds with an error at once.
    let quickly = async || {
        let begun = Instant::now();
        let path = "/api/v1/aggregates?granularity=DAY&from=2024-01-01&to=2024-01-02";
        let (status, problem) = installation.api(path).await.expect("a response");
        assert_eq!(status, 503, "{problem}");
        if begun.elapsed() < Duration::from_secs(1) { Ok(()) } else { Err(format!("{:?}", begun.elapsed())) }
    };
    eventually(PATIENCE, "a response within a second", quickly).await;
    health("/readyz", 503).await;
    health("/healthz", 200).await;
    for name in ["ingestor", "aggregator", "api"] {
        eventually(PATIENCE, "the report has the reason", async || {
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
        assert!(lines < 200, "an outage is logged once, not repeatedly: {lines} lines\n{}", service.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_the_broker_at_their_start_and_after_a_crash_and_a_freeze() {
    let broker = kafka::Broker::start().await;
    let database = postgres::database().await;
    let mut installation = Installation::on(database.url(), &broker.brokers(), &redis::url().await);
    // A producer that has lost its brokers is replaced after this time.
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
async fn without_redis_all_services_still_work() {
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

    // The totals stay correct after Redis has started again without data, and while it hangs.
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
async fn a_stop_does_not_wait_for_a_hung_database_and_a_second_signal_stops_at_once() {
    let server = postgres::Server::start().await;
    let installation = Installation::on(&server.url(), &kafka::brokers().await, &redis::url().await);
    installation.set_up().await;
    let [mut ingestor, mut aggregator] = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let mut generator = installation.generator(&LOAD);
    more_than(&installation, 1_000).await;
    server.pause().await;
    // Batches in flight now wait for a server that does not respond.
    for name in ["ingestor", "aggregator"] {
        installation.readiness(name, 503).await;
    }
    ingestor.terminate();
    aggregator.terminate();
    eventually(PATIENCE, "the ingestor is stopping", async || {
        if ingestor.stderr().contains("stopping") { Ok(()) } else { Err(ingestor.stderr()) }
    })
    .await;
    assert!(ingestor.is_running(), "the ingestor waits for the batches in flight");
    ingestor.terminate();
    assert_eq!(ingestor.code(Duration::from_secs(5)).await, 143);
    assert_eq!(aggregator.code(Duration::from_secs(30)).await, 0, "{}", aggregator.stderr());

    // The broker delivers the records of the aborted batches again.
    server.resume().await;
    let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    withstood(&installation, &mut generator).await;
}

/// Waits until the API returns totals of `events` events.
async fn totals(installation: &Installation, events: i64) {
    eventually(PATIENCE, "the API has the totals", async || {
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

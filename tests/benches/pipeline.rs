//! How fast the built services work off a backlog, broker, PostgreSQL (fsync on) and services on one machine, and how
//! much memory they take. `docs/performance.md` has the figures; run it with
//! `cargo build --release -p netagg && cargo bench -p netagg-testkit --bench pipeline`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark: its output is its purpose"
)]

#[allow(dead_code, reason = "a benchmark needs a part")]
#[path = "../tests/support/programs.rs"]
mod programs;

use std::sync::Arc;
use std::time::{Duration, Instant};

use netagg_core::load::{EventModel, LoadConfig, LoadStats, send};
use netagg_kafka::{KafkaConfig, KafkaPublisher};
use netagg_testkit::{kafka, postgres, redis};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::programs::Process;

/// How many events, unless NETAGG_BENCH_EVENTS says otherwise.
const EVENTS: u64 = 300_000;
/// Runs of each service; the median counts.
const RUNS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    let events = std::env::var("NETAGG_BENCH_EVENTS").map_or(EVENTS, |text| text.parse().expect("a number"));
    let (broker, server, cache) =
        tokio::join!(kafka::Broker::start(), postgres::Server::start(), redis::Server::start());
    let variables = |run: usize| {
        vec![
            ("DATABASE_URL", server.url()),
            ("REDIS_URL", cache.url()),
            ("KAFKA_BROKERS", broker.brokers()),
            ("KAFKA_GROUP_ID_INGESTOR", format!("ingestor-{run}")),
            ("KAFKA_GROUP_ID_AGGREGATOR", format!("aggregator-{run}")),
            ("PPROF_PORT_INGESTOR", "16060".to_owned()),
            ("PPROF_PORT_AGGREGATOR", "16061".to_owned()),
        ]
    };
    run("netagg", &["topic", "create"], variables(0)).await;
    for (label, duplicate_rate, topic) in
        [("no duplicates", 0.0, "events.clean"), ("20 % duplicates", 0.2, "events.dirty")]
    {
        let mut create = variables(0);
        create.push(("KAFKA_TOPIC", topic.to_owned()));
        run("netagg", &["topic", "create"], create).await;
        let records = publish(&broker.brokers(), topic, events, duplicate_rate).await;
        println!("\n{events} events, {label}: {records} messages");
        for service in ["ingestor", "aggregator"] {
            let mut results = Vec::new();
            for number in 0..RUNS {
                // Empty tables, a new group: the same work each time.
                run("netagg", &["migrate", "down", "--all"], variables(0)).await;
                run("netagg", &["migrate", "up"], variables(0)).await;
                let mut variables = variables(1 + number);
                variables.push(("KAFKA_TOPIC", topic.to_owned()));
                results.push(work_off(service, variables, &server.url(), records).await);
            }
            results.sort_by(|one, other| one.rate.total_cmp(&other.rate));
            let rates = results.iter().map(|run| format!("{:.0}", run.rate)).collect::<Vec<_>>().join(" ");
            let resident = results.iter().map(|run| run.resident).max().unwrap_or(0);
            let Run { rate, whole, .. } = results[RUNS / 2];
            println!(
                "  {service:<10} {rate:>7.0} messages/s (median of {rates}); {:.1} s from start to done; \
                 {resident} MiB resident at most",
                whole.as_secs_f64()
            );
        }
    }
}

async fn publish(brokers: &str, topic: &str, events: u64, duplicate_rate: f64) -> u64 {
    let now = netagg_core::ports::Clock::now(&netagg_core::ports::SystemClock);
    let model = Arc::new(EventModel::new(42, 10_000, now).expect("a model"));
    let publisher = Arc::new(KafkaPublisher::new(&KafkaConfig::new(brokers), topic).expect("a publisher"));
    let load = LoadConfig {
        events_per_sec: None,
        events: Some(events),
        duration: None,
        batch_size: 2_000,
        workers: 2,
        duplicate_rate,
        invalid_rate: 0.0,
    };
    let stats = Arc::new(LoadStats::default());
    let (sent, mut received) = mpsc::channel(64);
    tokio::spawn(async move { while received.recv().await.is_some() {} });
    let begun = Instant::now();
    send(model, load, publisher, stats.clone(), sent, CancellationToken::new()).await.expect("sent");
    println!("published at {:.0} messages/s", events as f64 / begun.elapsed().as_secs_f64());
    stats.events() + stats.duplicates()
}

/// What one run showed.
struct Run {
    /// Messages per second between the first batch and the last.
    rate: f64,
    /// From the start of the process, joining the group included.
    whole: Duration,
    /// The most memory, in MiB.
    resident: u64,
}

async fn work_off(service: &str, variables: Vec<(&str, String)>, database: &str, records: u64) -> Run {
    let pool = PgPool::connect(database).await.expect("the database answers");
    let process = Process::start(service, [""; 0], variables);
    let started = Instant::now();
    let mut first = None;
    loop {
        assert!(started.elapsed() < DEADLINE, "{service}: {}", process.stderr());
        let done: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(upper(done) - lower(done)), 0)::bigint FROM consumer_progress WHERE service = $1",
        )
        .bind(service)
        .fetch_one(&pool)
        .await
        .expect("the progress");
        let (now, done) = (Instant::now(), done.unsigned_abs());
        let (since, before) = match first {
            None if done == 0 => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            }
            None => *first.insert((now, done)),
            Some(first) => first,
        };
        if done >= records {
            let resident = resident_mib(process.id());
            process.terminate();
            let mut process = process;
            process.wait(Duration::from_secs(30)).await;
            pool.close().await;
            let rate = (done - before) as f64 / (now - since).as_secs_f64();
            return Run { rate, whole: now - started, resident };
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The most memory that the process has had resident.
fn resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1_024
}

async fn run(program: &str, arguments: &[&str], variables: Vec<(&str, String)>) {
    let mut process = Process::start(program, arguments, variables);
    let code = process.code(Duration::from_secs(60)).await;
    assert_eq!(code, 0, "{program} {arguments:?}: {}", process.stderr());
}

//! Measures how fast a backlog is stored and counted, and at which cost. It compares the services of netagg in both modes with
//! a plain loop that a team would write itself. Broker, PostgreSQL (fsync on) and services share a machine.
//! `docs/performance.md` has the figures.
//!
//! ```sh
//! cargo build --release -p netagg && cargo bench -p netagg-testkit --bench pipeline
//! ```
//!
//! The runs of all contenders are interleaved, and each result is the median of the runs. `NETAGG_BENCH_EVENTS`,
//! `NETAGG_BENCH_RUNS` and `NETAGG_BENCH_DUPLICATES` (a list of percentages) change the load. `NETAGG_BENCH_PLOT` names an SVG
//! file for the rates. An argument selects the contenders whose name contains it; `freshness` runs only the last part.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark: its output is its purpose"
)]

mod contender;
mod freshness;
#[allow(dead_code, reason = "a benchmark uses only a part")]
#[path = "../../tests/support/otlp.rs"]
mod otlp;
mod plain_loop;
mod plot;
#[allow(dead_code, reason = "a benchmark uses only a part")]
#[path = "../../tests/support/programs.rs"]
mod programs;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use contender::{Contender, run_as_plain_loop};
use netagg_core::load::{EventModel, LoadConfig, LoadStats, send};
use netagg_core::ports::{Clock, SystemClock};
use netagg_kafka::{KafkaConfig, KafkaPublisher};
use netagg_testkit::{eventually, kafka, postgres, redis};
use otlp::OtlpReceiver;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use usage::server_cpu_seconds;

use crate::programs::Process;

/// The number of events, if NETAGG_BENCH_EVENTS is not set.
const EVENTS: u64 = 300_000;
/// The number of runs of each contender, if NETAGG_BENCH_RUNS is not set.
const RUNS: u64 = 3;
const DEADLINE: Duration = Duration::from_secs(600);

/// The tables of each contender, for the bytes per event.
const TABLES: &str = "
    SELECT relname::text, pg_total_relation_size(oid) FROM pg_class
    WHERE relname IN ('event_identity', 'agg_identity', 'plain_events') AND relkind = 'r'
    UNION ALL
    SELECT 'events_raw', coalesce(sum(pg_total_relation_size(relid)), 0)::bigint
    FROM pg_partition_tree((SELECT oid FROM pg_class WHERE relname = 'events_raw'))
    ORDER BY 1";

/// The servers that all contenders use.
struct Servers {
    broker: kafka::Broker,
    postgres: postgres::Server,
    cache: redis::Server,
    traces: OtlpReceiver,
    admin: PgPool,
    /// The first process of PostgreSQL, unless it runs in a container.
    postmaster: Option<u32>,
}

#[tokio::main]
async fn main() {
    if run_as_plain_loop().await {
        return;
    }
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (events, runs) = (number("NETAGG_BENCH_EVENTS", EVENTS), number("NETAGG_BENCH_RUNS", RUNS));
    let duplicates = std::env::var("NETAGG_BENCH_DUPLICATES").unwrap_or_else(|_| "0,5,20".to_owned());
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let servers = Servers::start().await;
    let mut rates = Vec::new();
    for percent in duplicates.split(',').map(|percent| percent.trim().parse::<u32>().expect("a percentage")) {
        let topic = format!("events.{percent}");
        let records = servers.publish(&topic, events, f64::from(percent) / 100.0).await;
        println!("\n{events} events and {percent} % duplicates: {records} messages, median of {runs} interleaved runs");
        let contenders: Vec<_> =
            Contender::ALL.into_iter().filter(|contender| contender.name().contains(&filter)).collect();
        let mut results: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
        for run in 0..runs {
            for (contender, results) in contenders.iter().zip(&mut results) {
                results.push(servers.work_off(*contender, &topic, run, (events, records)).await);
            }
        }
        let results: Vec<_> = contenders.into_iter().zip(results).collect();
        print(&results);
        rates.push((
            percent,
            results.iter().map(|(contender, runs)| (contender.name(), median(runs, |run| run.rate))).collect(),
        ));
    }
    if let Ok(path) = std::env::var("NETAGG_BENCH_PLOT") {
        plot::draw(&path, &rates);
    }
    if "freshness".contains(&filter) {
        freshness::measure(&servers).await;
    }
}

impl Servers {
    async fn start() -> Self {
        let (broker, postgres, cache) =
            tokio::join!(kafka::Broker::start(), postgres::Server::start(), redis::Server::start());
        let admin = PgPool::connect(&postgres.url()).await.expect("the server answers");
        let mut session = admin.acquire().await.expect("a session");
        let backend = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *session).await.expect("a process");
        let postmaster = usage::postmaster(backend);
        drop(session);
        Self { broker, postgres, cache, traces: OtlpReceiver::start().await, admin, postmaster }
    }

    /// Replaces the database `name` by an empty database. Returns its address.
    async fn database(&self, name: &str) -> String {
        // The sessions of the last run and workers of the server may still use the database for a short time.
        eventually(DEADLINE, "the last database is dropped", async || {
            let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}"));
            sqlx::raw_sql(drop).execute(&self.admin).await.map_err(|error| error.to_string())
        })
        .await;
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&self.admin).await.expect("an empty database");
        let mut url = url::Url::parse(&self.postgres.url()).expect("an address");
        url.set_path(name);
        url.to_string()
    }

    fn variables(&self, database: &str, topic: &str, group: &str) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", database.to_owned()),
            ("REDIS_URL", self.cache.url()),
            ("KAFKA_BROKERS", self.broker.brokers()),
            ("KAFKA_TOPIC", topic.to_owned()),
            ("KAFKA_GROUP_ID_INGESTOR", format!("{group}-ingestor")),
            ("KAFKA_GROUP_ID_AGGREGATOR", format!("{group}-aggregator")),
            ("PPROF_PORT_INGESTOR", "16060".to_owned()),
            ("PPROF_PORT_AGGREGATOR", "16061".to_owned()),
            ("PPROF_PORT_API", "16062".to_owned()),
            ("API_HTTP_PORT", "18000".to_owned()),
            ("API_GRPC_PORT", "19090".to_owned()),
        ]
    }

    /// Fills a topic. Returns how many records it has.
    async fn publish(&self, topic: &str, events: u64, duplicate_rate: f64) -> u64 {
        run("netagg", &["topic", "create"], self.variables(&self.postgres.url(), topic, "")).await;
        let model = Arc::new(EventModel::new(42, 10_000, SystemClock.now()).expect("a model"));
        let publisher = KafkaPublisher::new(&KafkaConfig::new(self.broker.brokers()), topic).expect("a publisher");
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
        let stop = CancellationToken::new();
        send(model, load, Arc::new(publisher), stats.clone(), sent, stop).await.expect("sent");
        stats.events() + stats.duplicates()
    }

    async fn work_off(&self, contender: Contender, topic: &str, run_number: u64, (events, records): (u64, u64)) -> Run {
        let database = self.database("bench").await;
        let pool = PgPool::connect(&database).await.expect("the database answers");
        let group = format!("{}-{run_number}", contender.name().replace([' ', ','], ""));
        let variables = self.variables(&database, topic, &group);
        if contender.is_netagg() {
            run("netagg", &["migrate", "up"], variables.clone()).await;
        } else {
            sqlx::raw_sql(plain_loop::SCHEMA).execute(&pool).await.expect("tables");
        }
        let server_before = self.postmaster.and_then(server_cpu_seconds);
        let processes = contender.start(&variables, &self.traces.http());
        let started = Instant::now();
        let mut first = None;
        let rate = loop {
            let log = || processes.iter().map(contender::Running::log).collect::<String>();
            assert!(started.elapsed() < DEADLINE, "{}: {}", contender.name(), log());
            let done: i64 = sqlx::query_scalar(contender.progress()).fetch_one(&pool).await.expect("the progress");
            let (now, done) = (Instant::now(), done.unsigned_abs());
            match first {
                None if done > 0 => first = Some((now, done)),
                Some((since, before)) if done >= records && contender.has_stored(&pool, events).await => {
                    break (done - before) as f64 / (now - since).as_secs_f64();
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(if first.is_some() { 20 } else { 2 })).await;
        };
        let whole = started.elapsed();
        let cpu: f64 = processes.iter().map(contender::Running::cpu_seconds).sum();
        let server_cpu =
            server_before.zip(self.postmaster.and_then(server_cpu_seconds)).map(|(before, after)| after - before);
        let resident = processes.iter().map(contender::Running::resident_mib).collect();
        for process in processes {
            process.stop().await;
        }
        let bytes: Vec<(String, i64)> = sqlx::query_as(TABLES).fetch_all(&pool).await.expect("sizes");
        let check = sqlx::query_as(AssertSqlSafe(contender.check()));
        let (found, differing): (i64, i64) = check.fetch_one(&pool).await.expect("a comparison");
        pool.close().await;
        let million = |seconds: f64| seconds / records as f64 * 1e6;
        Run {
            rate,
            whole: whole.as_secs_f64(),
            cpu: million(cpu),
            server_cpu: server_cpu.map(million),
            resident,
            bytes: bytes.into_iter().map(|(table, bytes)| (table, bytes as f64 / events as f64)).collect(),
            is_exact: found.unsigned_abs() == events && differing == 0,
        }
    }
}

/// The results of a run.
struct Run {
    /// Messages per second between the first and the last batch.
    rate: f64,
    /// Seconds from the start of the processes to the end, with the time for joining the group.
    whole: f64,
    /// Processor seconds of the processes, for a million messages.
    cpu: f64,
    /// Processor seconds of PostgreSQL, for a million messages.
    server_cpu: Option<f64>,
    /// The most memory of each process, in MiB.
    resident: Vec<u64>,
    /// Bytes per event of each table, with its indexes.
    bytes: Vec<(String, f64)>,
    is_exact: bool,
}

fn median(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    // Of an even number of figures, the lower of the two middle figures.
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

fn print(results: &[(Contender, Vec<Run>)]) {
    println!(
        "| contender | messages/s | (lowest to highest) | start to done | CPU s per million: processes + PostgreSQL | MiB | \
         bytes per event | exact |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (contender, runs) in results {
        let rates = runs.iter().map(|run| run.rate);
        let (low, high) = rates.fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(rate), high.max(rate)));
        let (cpu, server) = (median(runs, |run| run.cpu), median(runs, |run| run.server_cpu.unwrap_or(f64::NAN)));
        let resident: Vec<_> = (0..runs[0].resident.len())
            .map(|at| runs.iter().map(|run| run.resident[at]).max().unwrap_or_default().to_string())
            .collect();
        let tables: Vec<_> = runs[0]
            .bytes
            .iter()
            .enumerate()
            .map(|(at, (table, _))| (table, median(runs, |run| run.bytes.get(at).map_or(0.0, |(_, bytes)| *bytes))))
            .filter(|(_, bytes)| *bytes >= 1.0)
            .collect();
        let sum: f64 = tables.iter().map(|(_, bytes)| bytes).sum();
        let tables: Vec<_> = tables.iter().map(|(table, bytes)| format!("{table} {bytes:.0}")).collect();
        println!(
            "| {} | {:.0} | {low:.0} to {high:.0} | {:.1} s | {cpu:.1} + {server:.1} = {:.1} | {} | {sum:.0} ({}) | {} |",
            contender.name(),
            median(runs, |run| run.rate),
            median(runs, |run| run.whole),
            cpu + server,
            resident.join(" + "),
            tables.join(", "),
            if runs.iter().all(|run| run.is_exact) { "yes" } else { "NO" },
        );
    }
    let rate = |wanted| {
        results.iter().find(|(contender, _)| *contender == wanted).map(|(_, runs)| median(runs, |run| run.rate))
    };
    let Some(combined) = rate(Contender::Combined) else { return };
    for other in [Contender::Separate, Contender::PlainLoop(1), Contender::PlainLoop(2)] {
        if let Some(other_rate) = rate(other) {
            println!("rate of the combined ingestor / rate of the {}: {:.2}", other.name(), combined / other_rate);
        }
    }
}

async fn run(program: &str, arguments: &[&str], variables: Vec<(&str, String)>) {
    let mut process = Process::start(program, arguments, variables);
    let code = process.code(Duration::from_secs(60)).await;
    assert_eq!(code, 0, "{program} {arguments:?}: {}", process.stderr());
}

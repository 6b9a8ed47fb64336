//! Measures how fast the API responds, and compares it with a bare axum handler that returns the same bytes. PostgreSQL, Redis,
//! the API and the client share a machine. `docs/performance.md` has the figures. Run it with
//! `cargo build --release -p netagg && cargo bench -p netagg-testkit --bench api`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark: its output is its purpose"
)]

#[allow(dead_code, reason = "a benchmark uses only a part")]
#[path = "../../tests/support/grpc.rs"]
mod grpc;
mod load;
#[allow(dead_code, reason = "a benchmark uses only a part")]
#[path = "../../tests/support/programs.rs"]
mod programs;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header;
use axum::routing::get;
use chrono::{NaiveDate, TimeDelta, Utc};
use load::{Connection, Outcome, Pace, Paths, always, calls, load};
use netagg_api::proto::GetGlobalAggRequest;
use netagg_testkit::{Port, eventually, postgres, redis};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::net::TcpListener;

use crate::programs::Process;

/// The number of stored events, if NETAGG_BENCH_EVENTS is not set.
const EVENTS: u64 = 10_000_000;
/// The number of rounds of a comparison. Its result is the median of the rounds.
const ROUNDS: usize = 5;
/// The duration of a round.
const ROUND: Duration = Duration::from_secs(3);
/// The duration of the overload in seconds, if NETAGG_BENCH_OVERLOAD is not set.
const OVERLOAD: u64 = 60;
/// The number of callers at the same time. Over HTTP each caller has its own connection.
const CALLERS: usize = 32;
/// The number of connections that the callers share over gRPC.
const SHARED: usize = 2;

const BARE: &str = "--bare";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, port, path] = &*arguments
        && flag == BARE
    {
        return serve_bare(port, path).await;
    }
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let events = number("NETAGG_BENCH_EVENTS", EVENTS);
    let (server, cache) = tokio::join!(postgres::Server::start(), redis::Server::start());
    let reserved: [Port; 4] = std::array::from_fn(|_| Port::reserve());
    let [http, grpc, ops, bare] = reserved.each_ref().map(Port::number);
    let variables = [
        ("DATABASE_URL", server.url()),
        ("REDIS_URL", cache.url()),
        ("API_HTTP_PORT", http.to_string()),
        ("API_GRPC_PORT", grpc.to_string()),
        ("PPROF_PORT_API", ops.to_string()),
    ];
    store(&server.url(), &variables, events).await;
    let api = Process::start("api", [""; 0], variables.clone());
    eventually(Duration::from_secs(60), "the API accepts connections", async || {
        Connection::open(http).await.map(drop).map_err(|error| error.to_string())
    })
    .await;

    let today = Utc::now().date_naive();
    compare_aggregates(http, bare, today).await;
    compare_transports(http, grpc, today).await;
    measure_pages(http, events, today).await;
    measure_export(http, &api, events, today).await;
    overload(http, today, Duration::from_secs(number("NETAGG_BENCH_OVERLOAD", OVERLOAD))).await;
}

/// Fills the database with events and their totals.
async fn store(url: &str, variables: &[(&str, String)], events: u64) {
    let begun = Instant::now();
    let mut migrate = Process::start("netagg", ["migrate", "up"], variables.iter().cloned());
    assert_eq!(migrate.code(Duration::from_secs(60)).await, 0, "{}", migrate.stderr());
    let pool = PgPool::connect(url).await.expect("the database answers");
    let script = include_str!("stored.sql").replace("EVENTS", &events.to_string());
    for statement in script.split("\n\n") {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&pool).await.expect("stored");
    }
    pool.close().await;
    println!("{events} events stored in {:.0} s", begun.elapsed().as_secs_f64());
}

/// Serves only `path`, with the bytes from stdin as the response body.
async fn serve_bare(port: &str, path: &str) {
    let body = std::io::read_to_string(std::io::stdin()).expect("the body");
    let respond = async move || ([(header::CONTENT_TYPE, "application/json")], body.clone());
    let app = Router::new().route(path, get(respond));
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("a port");
    axum::serve(listener, app).await.expect("served");
}

struct Bare(Child);

impl Bare {
    async fn start(port: u16, path: &str, body: &[u8]) -> Self {
        let program = std::env::current_exe().expect("a path");
        let mut child =
            Command::new(program).args([BARE, &port.to_string(), path]).stdin(Stdio::piped()).spawn().expect("started");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), body).expect("written");
        eventually(Duration::from_secs(10), "the bare handler accepts connections", async || {
            Connection::open(port).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Self(child)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn aggregates(today: NaiveDate) -> String {
    let from = today - TimeDelta::days(30);
    format!("/api/v1/aggregates?granularity=DAY&from={from}&to={today}")
}

async fn compare_aggregates(http: u16, bare: u16, today: NaiveDate) {
    let path = aggregates(today);
    let mut connection = Connection::open(http).await.expect("connected");
    let (status, body) = connection.get(&path).await.expect("a response");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
    let _bare = Bare::start(bare, "/api/v1/aggregates", body).await;
    println!("\ncached aggregates of 30 days, {} bytes, {CALLERS} connections", body.len());
    let mut rates = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (port, rates) in [bare, http].into_iter().zip(&mut rates) {
            let outcome = load(port, always(&path), CALLERS, Pace::Sequential, ROUND).await;
            assert_eq!((outcome.failed, outcome.shed), (0, 0));
            rates.push(outcome.rate());
        }
    }
    let [bare, api] = rates.map(median);
    println!("  bare axum handler {bare:.0}/s, API {api:.0}/s: {:.2} of the bare handler", api / bare);
}

async fn compare_transports(http: u16, port: u16, today: NaiveDate) {
    let path = aggregates(today);
    let request = GetGlobalAggRequest {
        granularity: "DAY".to_owned(),
        from: (today - TimeDelta::days(30)).to_string(),
        to: today.to_string(),
        ..GetGlobalAggRequest::default()
    };
    let message = grpc::frame(&request);

    let mut rates = [vec![], vec![], vec![]];
    for _ in 0..ROUNDS {
        let outcome = load(http, always(&path), CALLERS, Pace::Sequential, ROUND).await;
        assert_eq!((outcome.failed, outcome.shed), (0, 0));
        rates[0].push(outcome.rate());
        for (connections, rates) in [SHARED, CALLERS].into_iter().zip(&mut rates[1..]) {
            let method = "/telecom.v1.UsageService/GetGlobalAgg";
            rates.push(calls(port, method, message.clone(), CALLERS, connections, ROUND).await);
        }
    }
    let [http, shared, separate] = rates.map(median);
    println!("\nthe same aggregates over HTTP and gRPC, {CALLERS} requests at a time");
    println!("  HTTP {http:.0}/s");
    println!("  gRPC over {SHARED} connections {shared:.0}/s: {:.2} of HTTP", shared / http);
    println!("  gRPC over {CALLERS} connections {separate:.0}/s: {:.2} of HTTP", separate / http);
}

/// Paths of pages of 100 events. Each request asks for another of the 80,000 users, so no recent request has cached its page.
fn pages(today: NaiveDate) -> Paths {
    let from = today - TimeDelta::days(28);
    // A multiplier without a common factor goes through all users in a seemingly random order.
    Arc::new(move |number| {
        let user = number.wrapping_mul(48_271) % 80_000;
        format!("/api/v1/users/user-{user}/detail?from={from}T00:00:00Z&to={today}T00:00:00Z")
    })
}

async fn measure_pages(http: u16, events: u64, today: NaiveDate) {
    println!("\npages of 100 events of 80,000 users, {events} events stored");
    // In most of this round each page has been read before, so it is in the cache of PostgreSQL.
    let saturated = load(http, pages(today), CALLERS, Pace::Sequential, 10 * ROUND).await;
    print_load("  saturated", &saturated);
    let half = load(http, pages(today), CALLERS, Pace::PerSecond(saturated.rate() / 2.0), 5 * ROUND).await;
    print_load("  half of this rate", &half);

    println!("pages of users with {} and {} events, one request at a time, no other load", events / 1_000, events / 10);
    let mut connection = Connection::open(http).await.expect("connected");
    let from = today - TimeDelta::days(28);
    for (label, users) in
        [("1 in 1,000", (0..20).map(|user| format!("deep-{user}")).collect()), ("1 in 10", vec!["heavy".to_owned()])]
    {
        let mut by_depth: [Vec<f64>; 3] = Default::default();
        for user in users {
            let listing = format!("/api/v1/users/{user}/detail?from={from}T00:00:00Z&to={today}T00:00:00Z");
            let mut path = listing.clone();
            for page in 0..61 {
                let begun = Instant::now();
                let (status, body) = connection.get(&path).await.expect("a response");
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
                let took = begun.elapsed().as_secs_f64() * 1e3;
                match page {
                    0 => by_depth[0].push(took),
                    1..=5 => by_depth[1].push(took),
                    56.. => by_depth[2].push(took),
                    _ => {}
                }
                let page: serde_json::Value = serde_json::from_slice(body).expect("JSON");
                let Some(cursor) = page["next_cursor"].as_str() else { break };
                path = format!("{listing}&cursor={cursor}");
            }
        }
        let [first, next, deep] = by_depth.map(median);
        println!("  {label}: first page {first:.1} ms, pages 2 to 6 {next:.1} ms, pages 57 to 61 {deep:.1} ms");
    }
}

fn print_load(label: &str, outcome: &Outcome) {
    println!(
        "{label}: {:.0}/s; median {:.1} ms, p99 {:.1} ms; {} shed, {} failed",
        outcome.rate(),
        outcome.latency(0.5),
        outcome.latency(0.99),
        outcome.shed,
        outcome.failed
    );
}

async fn measure_export(http: u16, api: &Process, events: u64, today: NaiveDate) {
    let from = today - TimeDelta::days(28);
    let url = format!("http://127.0.0.1:{http}/api/v1/users/heavy/detail?from={from}T00:00:00Z&to={today}T00:00:00Z");
    let before = resident_mib(api.id());
    let begun = Instant::now();
    let mut answer =
        reqwest::Client::new().get(url).header(header::ACCEPT, "text/csv").send().await.expect("a response");
    let (mut bytes, mut rows, mut largest) = (0, 0_usize, before);
    while let Some(chunk) = answer.chunk().await.expect("a whole export") {
        bytes += chunk.len();
        rows += chunk.iter().filter(|byte| **byte == b'\n').count();
        if bytes % (1 << 20) < chunk.len() {
            largest = largest.max(resident_mib(api.id()));
        }
    }
    assert_eq!(rows as u64, events / 10 + 1, "every event and a header");
    println!(
        "\nCSV of {} events: {} MiB in {:.1} s; the API had {before} MiB resident before and {largest} MiB at most",
        rows - 1,
        bytes >> 20,
        begun.elapsed().as_secs_f64()
    );
}

async fn overload(http: u16, today: NaiveDate, time: Duration) {
    println!("\noverload with 10 times the saturated rate, pages of 80,000 users, for {} s", time.as_secs());
    let saturated = load(http, pages(today), CALLERS, Pace::Sequential, ROUND).await;
    let calm = load(http, pages(today), CALLERS, Pace::PerSecond(saturated.rate() / 4.0), ROUND).await;
    print_load("  a quarter of the saturated rate, before the overload", &calm);
    let overloaded = load(http, pages(today), 640, Pace::AtMost(saturated.rate() * 10.0), time).await;
    println!(
        "  offered {:.0}/s: served {:.0}/s, p99 of the served requests {:.1} ms after sending; {} shed, {} failed",
        saturated.rate() * 10.0,
        overloaded.rate(),
        overloaded.latency(0.99),
        overloaded.shed,
        overloaded.failed
    );
    let begun = Instant::now();
    loop {
        let after =
            load(http, pages(today), CALLERS, Pace::PerSecond(saturated.rate() / 4.0), Duration::from_millis(500))
                .await;
        if after.shed == 0 && after.failed == 0 && after.latency(0.99) < 3.0 * calm.latency(0.99).max(2.0) {
            println!("  recovered within {:.1} s after the end of the overload", begun.elapsed().as_secs_f64());
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no recovery");
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The resident memory of the process now, in MiB.
fn resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1_024
}

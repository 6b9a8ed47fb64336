//! Members of both services are killed, stopped and started at random, while an adversary publishes records.
//!
//! `make soak` kills 1,000 members. `NETAGG_KILLS` sets the number of kills, and `NETAGG_KILLS_SEED` repeats the random choices
//! of a run.

use std::time::Instant;

use netagg_testkit::eventually;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::PgPool;

use super::installation::{Installation, PATIENCE};
use crate::support::programs::Process;

const KILLS: u64 = 24;
const SEED: u64 = 20_261_123;

/// If the lag of all services is below this number of records, more records are published.
const BACKLOG: i64 = 2_500;

/// The sizes of a batch and the times it may fill. Small batches are written with INSERT, large batches with COPY.
const BATCHES: [(&str, &str); 2] = [("50", "50ms"), ("2000", "300ms")];

/// The smallest number of records that each service processes between two kills, if it has not caught up.
const STRIDE: i64 = 60;

/// Two members of each service.
const MEMBERS: [&str; 4] = ["ingestor", "ingestor", "aggregator", "aggregator"];

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_lose_and_double_nothing() {
    kill_at_random(Installation::new().await, &MEMBERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_of_combined_ingestors_lose_and_double_nothing() {
    kill_at_random(Installation::combined().await, &MEMBERS[..2]).await;
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
async fn kill_at_random(mut installation: Installation, services: &[&'static str]) {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (kills, seed) = (number("NETAGG_KILLS", KILLS), number("NETAGG_KILLS_SEED", SEED));
    println!("NETAGG_KILLS={kills} NETAGG_KILLS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut adversary = installation.adversary(seed);
    adversary.publish(BACKLOG as usize).await;
    let pool = installation.pool().await;
    let mut members: Vec<Option<Process>> = services.iter().map(|_| None).collect();
    let (mut killed, mut stopped, mut absent) = (0, 0, 0);
    let (begun, mut before) = (Instant::now(), vec![0; installation.consumers().len()]);
    while killed < kills {
        for at in 0..services.len() {
            // Most members are started again at once. Some stay stopped while other members are killed.
            let is_service_down = members[at ^ 1].is_none();
            if members[at].is_none() && (is_service_down || rng.random_bool(0.7)) {
                members[at] = Some(start(&mut installation, services[at], at, &mut rng));
            }
        }
        before = progress(&pool, installation.consumers(), &before, adversary.records(), &mut members).await;
        if before.iter().all(|done| adversary.records() - done < BACKLOG) {
            adversary.publish(rng.random_range(50..2_500)).await;
        }
        let at = rng.random_range(0..services.len());
        let Some(mut member) = members[at].take() else {
            absent += 1;
            continue;
        };
        if rng.random_bool(0.85) {
            member.kill();
            killed += 1;
            assert_eq!(member.code(PATIENCE).await, 137, "the member had ended before the kill\n{}", member.stderr());
        } else {
            // Before its first log line, the program has no handler for the signal, so the signal would end it at once.
            eventually(PATIENCE, "the member has written a log line", async || {
                if member.stderr().is_empty() { Err("no log line".to_owned()) } else { Ok(()) }
            })
            .await;
            member.terminate();
            stopped += 1;
            assert_eq!(member.code(PATIENCE).await, 0, "{}", member.stderr());
        }
        if killed % 100 == 0 {
            println!("{killed} killed, {stopped} stopped, {} records, {:?}", adversary.records(), begun.elapsed());
        }
    }
    let survivors: Vec<Process> = (0..services.len())
        .map(|at| members[at].take().unwrap_or_else(|| start(&mut installation, services[at], at, &mut rng)))
        .collect();
    installation.withstood(&adversary).await;
    println!(
        "{killed} killed, {stopped} stopped, {absent} attempts on a stopped member; {} records, {} events, {} invalid, \
         {:?}: each event stored and counted once",
        adversary.records(),
        adversary.events(),
        adversary.invalid(),
        begun.elapsed()
    );
    drop(survivors);
}

/// Starts a member, mostly with the group instance id of the previous member, so that its partitions wait for it. A member
/// with a new id gets these partitions only after the session of the dead member has ended.
fn start(installation: &mut Installation, service: &str, at: usize, rng: &mut StdRng) -> Process {
    const MEMBER: &str = "KAFKA_OPT_GROUP_INSTANCE_ID";
    let member = if rng.random_bool(0.8) { format!("member-{at}") } else { String::new() };
    installation.set(MEMBER, &member);
    let (size, timeout) = BATCHES[rng.random_range(0..BATCHES.len())];
    for service in ["INGESTOR", "AGGREGATOR"] {
        installation.set(&format!("{service}_BATCH_SIZE"), size);
        installation.set(&format!("{service}_BATCH_TIMEOUT"), timeout);
    }
    installation.another(service)
}

/// Waits until each service has processed more records, or has nothing to do. Returns the number of processed records of each
/// service.
async fn progress(
    pool: &PgPool,
    services: &[&str],
    before: &[i64],
    records: i64,
    members: &mut [Option<Process>],
) -> Vec<i64> {
    eventually(PATIENCE, "the services process more records", async || {
        let mut now = Vec::new();
        for service in services {
            let done: Result<i64, _> = sqlx::query_scalar(
                "SELECT coalesce(sum(upper(range) - lower(range)), 0)::bigint \
                 FROM consumer_progress, unnest(done) AS range WHERE service = $1",
            )
            .bind(service)
            .fetch_one(pool)
            .await;
            now.push(done.map_err(|error| error.to_string())?);
        }
        if now.iter().zip(before).all(|(now, before)| *now >= before + STRIDE || *now == records) {
            Ok(now)
        } else {
            let logs = members.iter_mut().flatten().map(|member| {
                assert!(member.is_running(), "the member has ended by itself\n{}", member.stderr());
                member.stderr()
            });
            Err(format!("{now:?} after {before:?} of {records}\n{}", logs.collect::<Vec<_>>().join("\n\n")))
        }
    })
    .await
}

//! Members of both services killed, stopped and started at random, in the middle of an adversary's stream.
//!
//! `make soak` has 1,000 of them killed. `NETAGG_KILLS` says how many, `NETAGG_KILLS_SEED` repeats a run's choices.

use std::time::Instant;

use netagg_testkit::eventually;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::PgPool;

use super::installation::{Installation, PATIENCE};
use crate::support::programs::Process;

const KILLS: u64 = 24;
const SEED: u64 = 20_261_123;

/// What the services may be behind before more is published.
const BACKLOG: i64 = 600;

/// What both services do between two blows, at least, unless they have caught up.
const STRIDE: i64 = 60;

/// Two of each.
const MEMBERS: [&str; 4] = ["ingestor", "ingestor", "aggregator", "aggregator"];

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_lose_and_double_nothing() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (kills, seed) = (number("NETAGG_KILLS", KILLS), number("NETAGG_KILLS_SEED", SEED));
    println!("NETAGG_KILLS={kills} NETAGG_KILLS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut installation = Installation::new().await;
    for variable in ["INGESTOR_BATCH_SIZE", "AGGREGATOR_BATCH_SIZE"] {
        installation.set(variable, "50");
    }
    let mut adversary = installation.adversary(seed);
    adversary.publish(BACKLOG as usize).await;
    let pool = installation.pool().await;
    let mut members: Vec<Option<Process>> = (0..MEMBERS.len()).map(|_| None).collect();
    let (mut killed, mut stopped, mut absent) = (0, 0, 0);
    let (begun, mut before) = (Instant::now(), Done::default());
    while killed < kills {
        for at in 0..MEMBERS.len() {
            // Most are back at once; some stay away while others fall.
            let first_of_its_kind = members[at ^ 1].is_none();
            if members[at].is_none() && (first_of_its_kind || rng.random_bool(0.7)) {
                members[at] = Some(start(&mut installation, at, &mut rng));
            }
        }
        before = progress(&pool, before, adversary.records(), &mut members).await;
        if adversary.records() - before.least() < BACKLOG {
            adversary.publish(rng.random_range(50..400)).await;
        }
        let at = rng.random_range(0..MEMBERS.len());
        let Some(mut member) = members[at].take() else {
            absent += 1;
            continue;
        };
        if rng.random_bool(0.85) {
            member.kill();
            killed += 1;
            assert_eq!(member.code(PATIENCE).await, 137, "it had not ended by itself\n{}", member.stderr());
        } else {
            // Before its first line the program does not catch the signal yet, which then ends it at once.
            eventually(PATIENCE, "the member has begun", async || {
                if member.stderr().is_empty() { Err("no line of its log".to_owned()) } else { Ok(()) }
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
    let survivors: Vec<Process> = (0..MEMBERS.len())
        .map(|at| members[at].take().unwrap_or_else(|| start(&mut installation, at, &mut rng)))
        .collect();
    installation.withstood(&adversary).await;
    println!(
        "{killed} killed, {stopped} stopped, {absent} blows into the air; {} records, {} events, {} invalid, {:?}: \
         all stored and counted once",
        adversary.records(),
        adversary.events(),
        adversary.invalid(),
        begun.elapsed()
    );
    drop(survivors);
}

/// Starts a member, more often than not as the one that was there before: its partitions then wait for it. A member that
/// is new to the group has them only when the broker gives the dead one up.
fn start(installation: &mut Installation, at: usize, rng: &mut StdRng) -> Process {
    const MEMBER: &str = "KAFKA_OPT_GROUP_INSTANCE_ID";
    let member = if rng.random_bool(0.8) { format!("member-{at}") } else { String::new() };
    installation.set(MEMBER, &member);
    installation.another(MEMBERS[at])
}

/// How many records each service is done with.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    ingestor: i64,
    aggregator: i64,
}

impl Done {
    fn least(self) -> i64 {
        self.ingestor.min(self.aggregator)
    }
}

/// Waits until both services have come on, or have nothing to do.
async fn progress(pool: &PgPool, before: Done, records: i64, members: &mut [Option<Process>]) -> Done {
    eventually(PATIENCE, "both services come on", async || {
        let done = |service: &'static str| {
            sqlx::query_scalar::<_, i64>(
                "SELECT coalesce(sum(upper(range) - lower(range)), 0)::bigint \
                 FROM consumer_progress, unnest(done) AS range WHERE service = $1",
            )
            .bind(service)
            .fetch_one(pool)
        };
        let now = Done {
            ingestor: done("ingestor").await.map_err(|error| error.to_string())?,
            aggregator: done("aggregator").await.map_err(|error| error.to_string())?,
        };
        let comes_on = |now: i64, before: i64| now >= before + STRIDE || now == records;
        if comes_on(now.ingestor, before.ingestor) && comes_on(now.aggregator, before.aggregator) {
            Ok(now)
        } else {
            let said = members.iter_mut().flatten().map(|member| {
                assert!(member.is_running(), "it had not ended by itself\n{}", member.stderr());
                member.stderr()
            });
            Err(format!("{now:?} after {before:?} of {records}\n{}", said.collect::<Vec<_>>().join("\n\n")))
        }
    })
    .await
}

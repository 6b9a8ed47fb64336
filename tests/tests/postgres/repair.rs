//! Repairs and rebuilds make the totals equal to the stored events again after any damage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netagg_core::ports::TotalsRepair;
use netagg_core::{Day, Error, Event};
use netagg_pg::{Column, PgTotalsRepair, RebuildOptions, RebuildReport, Skipped};
use netagg_testkit::eventually;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::Fresh;
use super::log::{Log, differences, ledger_differences, of_content, of_day};

const PATIENCE: Duration = Duration::from_secs(120);

const DAY: &str = "2025-10-20";
const OTHER_DAY: &str = "2025-10-21";

fn day(day: &str) -> Day {
    day.parse().unwrap()
}

/// Rebuilds the days from `from` to `to`.
async fn rebuild(fresh: &Fresh, from: &str, to: &str) -> RebuildReport {
    let mut options = RebuildOptions::new(day(from), day(to));
    options.patience = PATIENCE;
    fresh.postgres.rebuild().run(&options, &|_| {}, &CancellationToken::new()).await.unwrap()
}

/// Repairs until no day is dirty.
async fn repair_all_dirty(fresh: &Fresh) {
    let repair = PgTotalsRepair::new(fresh.postgres.clone());
    eventually(PATIENCE, "no day is dirty", async || {
        repair.repair().await.map_err(|error| error.to_string())?;
        match fresh.value::<i64>("SELECT count(*) FROM agg_dirty_day").await {
            0 => Ok(()),
            dirty => Err(format!("{dirty} dirty days")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_rebuild_corrects_any_damage_of_totals_and_ledger() {
    let damages = [
        "UPDATE agg_day SET count_events = count_events + 3, sum_bytes_up = 0 WHERE type = 'DATA'",
        "UPDATE agg_day SET sum_duration = -5, sum_bytes_down = 1e30 WHERE type = 'SMS_SENT'",
        "DELETE FROM agg_day WHERE type = 'CALL_IN'",
        "DELETE FROM agg_day WHERE day = '2025-10-20'; INSERT INTO agg_day VALUES ('2025-10-22', 'DATA', 7, 7, 7, 7)",
        "INSERT INTO agg_day VALUES ('2025-10-22', 'DATA', 0, 0, 0, 0)",
        "DELETE FROM agg_identity WHERE day = '2025-10-20'",
        "DELETE FROM agg_identity WHERE key < '80000000-0000-0000-0000-000000000000'",
        "TRUNCATE agg_identity",
        "TRUNCATE agg_day",
        "TRUNCATE agg_day, agg_identity",
        "UPDATE agg_identity SET content = content + 1, day = '2025-10-21' WHERE day = '2025-10-20'",
    ];
    for damage in damages {
        let fresh = Fresh::migrated().await;
        let log = Log::new(&fresh, (0..200).map(|id| of_day(id, if id % 2 == 0 { DAY } else { OTHER_DAY })));
        log.store(0..200).await;
        log.count(0..200).await;
        fresh.execute(damage).await;
        let rebuilt = rebuild(&fresh, "2025-10-01", "2025-10-31").await;
        assert!(rebuilt.skipped.is_empty() && rebuilt.is_complete(), "{damage}: {rebuilt:?}");
        // The other day of a conflict is marked.
        repair_all_dirty(&fresh).await;
        assert_eq!(differences(&fresh).await, Vec::<String>::new(), "{damage}");
        assert_eq!(ledger_differences(&fresh).await, 0, "{damage}");
    }
}

#[tokio::test]
async fn changes_are_reported_before_and_after_a_rebuild() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..10).map(|id| of_day(id * 5, DAY)));
    log.store(0..10).await;
    log.count(0..8).await;
    fresh.execute("UPDATE agg_day SET count_events = 9").await;
    let repairs = fresh.postgres.repairs();
    let mut dry = repairs.begin(&[day(DAY)], PATIENCE).await.unwrap();
    dry.wait_for_the_ingestor(PATIENCE).await.unwrap();
    assert_eq!(dry.uncounted(), 2);
    let announced = dry.changes();
    assert_eq!(announced[0].column, Column::CountEvents);
    assert_eq!((announced[0].before, announced[0].after), (Some(9), Some(10)));
    drop(dry);
    assert_eq!(fresh.value::<i64>("SELECT count_events FROM agg_day").await, 9, "nothing is changed");

    assert_eq!(rebuild(&fresh, DAY, DAY).await.changes, announced);
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
    assert_eq!(rebuild(&fresh, DAY, DAY).await.changes, []);
    // The aggregator now processes the events that the rebuild has already counted.
    log.count(8..10).await;
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_repair_waits_until_the_ingestor_has_stored_the_counted_events() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..60).map(|id| of_day(id, DAY)));
    log.store(0..20).await;
    log.count(0..60).await;
    fresh
        .execute("UPDATE agg_day SET count_events = count_events + 1; INSERT INTO agg_dirty_day VALUES ('2025-10-20')")
        .await;

    let repairs = fresh.postgres.repairs();
    let mut impatient = repairs.begin(&[day(DAY)], PATIENCE).await.unwrap();
    impatient.wait_for_the_ingestor(Duration::ZERO).await.unwrap();
    assert_eq!(impatient.skipped()[&day(DAY)], Skipped::IngestorBehind { events: 40 });
    impatient.forget_unstored().await.unwrap();
    assert_eq!(
        impatient.skipped()[&day(DAY)],
        Skipped::IngestorBehind { events: 40 },
        "the ingestor has not processed their offsets yet"
    );
    assert_eq!(impatient.finish().await.unwrap(), []);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_dirty_day").await, 1, "the day is still dirty");

    let mut patient = repairs.begin(&[day(DAY)], PATIENCE).await.unwrap();
    let (waited, ()) = tokio::join!(patient.wait_for_the_ingestor(PATIENCE), log.store(20..60));
    waited.unwrap();
    assert_eq!(patient.finish().await.unwrap().len(), 5, "the count of each type");
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_dirty_day").await, 0);
}

#[tokio::test]
async fn a_repair_does_not_count_events_that_the_aggregator_has_not_processed() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..60).map(|id| of_day(id, DAY)));
    log.store(0..60).await;
    log.count(0..20).await;
    fresh
        .execute("UPDATE agg_day SET count_events = count_events + 1; INSERT INTO agg_dirty_day VALUES ('2025-10-20')")
        .await;
    let dirty = PgTotalsRepair::new(fresh.postgres.clone());
    assert_eq!(dirty.repair().await.unwrap(), [day(DAY)]);
    assert_eq!(fresh.value::<i64>("SELECT sum(count_events)::bigint FROM agg_day").await, 20);
    log.count(20..60).await;
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
    assert_eq!(dirty.repair().await.unwrap(), []);
}

#[tokio::test]
async fn only_a_rebuild_removes_events_from_totals_that_will_never_be_stored() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..41).map(|id| of_day(id, DAY)));
    log.store(0..40).await;
    log.count(0..40).await;
    // The ingestor has processed the offsets of these events, so it will not store them again.
    fresh.execute("DELETE FROM events_raw WHERE type = 'DATA'").await;
    fresh
        .execute(
            "DELETE FROM event_identity WHERE key NOT IN (
                 SELECT event_key(source_id, event_id) FROM events_raw);
             INSERT INTO agg_dirty_day VALUES ('2025-10-20')",
        )
        .await;
    let dirty = PgTotalsRepair::new(fresh.postgres.clone());
    assert_eq!(dirty.repair().await.unwrap(), []);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_dirty_day").await, 1);
    assert_eq!(fresh.value::<i64>("SELECT sum(count_events)::bigint FROM agg_day").await, 40);

    let repairs = fresh.postgres.repairs();
    let mut repair = repairs.begin(&[day(DAY)], PATIENCE).await.unwrap();
    repair.wait_for_the_ingestor(Duration::ZERO).await.unwrap();
    assert_eq!(repair.skipped()[&day(DAY)], Skipped::IngestorBehind { events: 8 });
    repair.forget_unstored().await.unwrap();
    repair.finish().await.unwrap();
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
    assert_eq!(ledger_differences(&fresh).await, 0);
    assert_eq!(dirty.repair().await.unwrap(), [], "no day is dirty any more");
    // If the events are sent again, they are counted again.
    log.store(0..41).await;
    log.count(0..41).await;
    assert_eq!(fresh.value::<i64>("SELECT sum(count_events)::bigint FROM agg_day").await, 41);
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
}

/// Each event has two contents, mostly on two days. Each service processes the copies in its own order, and repairs of either
/// day run at any time between.
#[tokio::test]
async fn totals_are_exact_after_conflicts_and_repairs_in_any_order() {
    const EVENTS: usize = 80;
    let fresh = Fresh::migrated().await;
    let repairs = fresh.postgres.repairs();
    let mut rng = StdRng::seed_from_u64(4);
    for id in 0..EVENTS {
        // Each event has its own days, so that the conflict of another event does not mark them.
        let days = [0, 1].map(|which| day("2024-01-01").saturating_add_days(2 * id as i64 + which).to_string());
        let second = if id % 5 == 0 { &days[0] } else { &days[1] };
        let copies = [of_content(id as u128, &days[0], 0), of_content(id as u128, second, 7)];
        let log = Log::new(&fresh, copies);
        let mut steps = [Step::Store, Step::Store, Step::Count, Step::Count]
            .into_iter()
            .chain((0..rng.random_range(0..5)).map(|_| Step::Repair(rng.random_range(0..2))))
            .collect::<Vec<_>>();
        steps.shuffle(&mut rng);
        let (mut to_store, mut to_count) = ([0, 1], [0, 1]);
        to_store.shuffle(&mut rng);
        to_count.shuffle(&mut rng);
        let (mut to_store, mut to_count) = (to_store.into_iter(), to_count.into_iter());
        for step in steps {
            match step {
                Step::Store => {
                    let offset = to_store.next().unwrap();
                    log.store(offset..offset + 1).await;
                }
                Step::Count => {
                    let offset = to_count.next().unwrap();
                    log.count(offset..offset + 1).await;
                }
                Step::Repair(which) => {
                    let mut repair = repairs.begin(&[day(&days[which])], PATIENCE).await.unwrap();
                    repair.wait_for_the_ingestor(Duration::ZERO).await.unwrap();
                    repair.finish().await.unwrap();
                }
            }
        }
    }
    repair_all_dirty(&fresh).await;
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
    assert_eq!(ledger_differences(&fresh).await, 0, "the ledgers are equal, too");
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, EVENTS as i64);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Store,
    Count,
    Repair(usize),
}

#[tokio::test]
async fn a_day_that_is_marked_again_during_its_repair_stays_marked() {
    let fresh = Fresh::migrated().await;
    let copies = [of_content(1, DAY, 0), of_content(1, DAY, 7), of_content(2, DAY, 0), of_content(2, DAY, 7)];
    let log = Log::new(&fresh, copies);
    log.store(0..2).await;
    log.count(1..2).await;
    let mut repair = fresh.postgres.repairs().begin(&[day(DAY)], PATIENCE).await.unwrap();
    log.store(3..4).await;
    log.count(2..4).await;
    repair.wait_for_the_ingestor(PATIENCE).await.unwrap();
    assert!(!repair.finish().await.unwrap().is_empty());
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_dirty_day").await, 1);
    assert_ne!(
        differences(&fresh).await,
        Vec::<String>::new(),
        "the totals still contain the aggregator's copy of the second event"
    );
    repair_all_dirty(&fresh).await;
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
}

#[tokio::test]
async fn two_repairs_of_a_day_take_turns() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..30).map(|id| of_day(id, DAY)));
    log.store(0..30).await;
    log.count(0..30).await;
    fresh.execute("UPDATE agg_day SET count_events = count_events + 1").await;
    let repairs = fresh.postgres.repairs();
    let first = repairs.begin(&[day(DAY)], PATIENCE).await.unwrap();
    let busy = repairs.begin(&[day(DAY), day(OTHER_DAY)], Duration::ZERO).await.unwrap();
    assert_eq!(*busy.skipped(), [(day(DAY), Skipped::Busy)].into());
    assert_eq!(busy.finish().await.unwrap(), []);
    let days = [day(DAY)];
    let (second, changes) = tokio::join!(repairs.begin(&days, PATIENCE), first.finish());
    assert_eq!(changes.unwrap().len(), 5);
    assert_eq!(second.unwrap().finish().await.unwrap(), [], "the second repair finds nothing to change");
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_repair_that_has_lost_its_connection_changes_nothing() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..30).map(|id| of_day(id, DAY)));
    log.store(0..30).await;
    log.count(0..30).await;
    fresh
        .execute("UPDATE agg_day SET count_events = count_events + 1; INSERT INTO agg_dirty_day VALUES ('2025-10-20')")
        .await;
    let repairs = fresh.postgres.repairs();
    let cut_off = repairs.begin(&[day(DAY)], PATIENCE).await.unwrap();
    // The session that holds the lock of the day is the session of the repair.
    fresh
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks
             WHERE locktype = 'advisory' AND objsubid = 2 AND objid = date '2025-10-20' - date '1970-01-01'
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await;
    // Another repair corrects the day. If the first repair added its difference now, the totals would be wrong.
    repair_all_dirty(&fresh).await;
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
    let error = cut_off.finish().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_aggregator_finishes_a_rebuild_that_was_killed() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..300).map(|id| of_day(id, DAY)));
    log.store(0..300).await;
    log.count(0..300).await;
    fresh.execute("TRUNCATE agg_day, agg_identity").await;
    let repairs = fresh.postgres.repairs();
    repairs.mark(&[day(DAY)]).await.unwrap();
    drop(repairs.begin(&[day(DAY)], PATIENCE).await.unwrap());
    // The rebuild was killed before it had counted all events.
    log.count(0..100).await;
    fresh.execute("UPDATE agg_day SET count_events = count_events + 1").await;
    repair_all_dirty(&fresh).await;
    assert_eq!(differences(&fresh).await, Vec::<String>::new());
    assert_eq!(ledger_differences(&fresh).await, 0);
}

#[tokio::test]
async fn a_repair_does_not_change_dropped_months() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..30).map(|id| of_day(id, DAY)));
    log.store(0..30).await;
    log.count(0..30).await;
    fresh
        .execute(
            "INSERT INTO settings (name, value) VALUES ('dropped_through', '2025-10'); DROP TABLE events_raw_2025_10;
             TRUNCATE event_identity, agg_identity; INSERT INTO agg_dirty_day VALUES ('2025-10-20'), ('2025-11-01')",
        )
        .await;
    let dirty = PgTotalsRepair::new(fresh.postgres.clone());
    assert_eq!(dirty.repair().await.unwrap(), []);
    assert_eq!(fresh.value::<i64>("SELECT sum(count_events)::bigint FROM agg_day").await, 30, "totals stay");
    assert_eq!(
        fresh.value::<String>("SELECT string_agg(day::text, ' ') FROM agg_dirty_day").await,
        "2025-10-20",
        "the other day is repaired"
    );
    let error = fresh.postgres.repairs().begin(&[day(DAY)], PATIENCE).await.unwrap().finish().await.unwrap_err();
    assert!(matches!(error, Error::MonthsDropped { .. }), "{error}");
}

/// Both services work on the same days all the time, in turn ahead of each other, with conflicts. During this time the totals
/// are damaged and repaired repeatedly.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn days_are_repaired_while_services_write_to_the_same_days() {
    const CHUNK: usize = 40;
    for seed in 0..2 {
        let fresh = Fresh::migrated().await;
        let mut rng = StdRng::seed_from_u64(seed);
        let days = [DAY, OTHER_DAY, "2025-11-02"];
        let events: Vec<Event> = (0..4_000_u128)
            .map(|at| {
                // Every tenth event repeats an earlier id, mostly with other content on another day.
                let id = if at % 10 == 9 { rng.random_range(0..at) } else { at };
                of_content(id, days[rng.random_range(0..3)], u64::from(at % 10 == 9))
            })
            .collect();
        let log = Arc::new(Log::new(&fresh, events));
        let done = Arc::new(AtomicBool::new(false));
        let work = |seed: u64, is_ingestor: bool| {
            let log = log.clone();
            async move {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut chunks: Vec<usize> = (0..log.len() / CHUNK).collect();
                // Batches in flight may end in any order.
                for nearby in chunks.chunks_mut(8) {
                    nearby.shuffle(&mut rng);
                }
                for chunk in chunks {
                    let offsets = chunk * CHUNK..(chunk + 1) * CHUNK;
                    if is_ingestor {
                        log.store(offsets).await
                    } else {
                        log.count(offsets).await
                    }
                    if rng.random_range(0..10) == 0 {
                        tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
                    }
                }
            }
        };
        let services = async {
            tokio::join!(work(seed * 2, true), work(seed * 2 + 1, false));
            done.store(true, Ordering::Relaxed);
        };
        let all = days.map(day);
        let repairs = fresh.postgres.repairs();
        let dirty = PgTotalsRepair::new(fresh.postgres.clone());
        // With every second seed, there is no damage except conflicts, and only the aggregator repairs.
        let is_damaged = seed % 2 == 0;
        let rebuilding = async {
            while is_damaged && !done.load(Ordering::Relaxed) {
                let mut repair = repairs.begin(&all, PATIENCE).await.unwrap();
                repair.count_the_uncounted().await.unwrap();
                repair.wait_for_the_ingestor(Duration::from_millis(200)).await.unwrap();
                // If another session has changed the totals in the meantime, the repair fails, and the loop tries again.
                let _ = repair.finish().await;
            }
        };
        let repairing = async {
            while !done.load(Ordering::Relaxed) {
                dirty.repair().await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let damaging = async {
            while is_damaged && !done.load(Ordering::Relaxed) {
                fresh
                    .execute("UPDATE agg_day SET count_events = count_events + 1, sum_bytes_up = sum_bytes_up + 5 WHERE type = 'DATA'")
                    .await;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        };
        tokio::join!(services, rebuilding, repairing, damaging);
        if is_damaged {
            rebuild(&fresh, days[0], days[days.len() - 1]).await;
        }
        repair_all_dirty(&fresh).await;
        assert_eq!(differences(&fresh).await, Vec::<String>::new(), "seed {seed}");
        assert_eq!(ledger_differences(&fresh).await, 0, "seed {seed}");
    }
}

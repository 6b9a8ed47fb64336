//! The audit compares totals and events while the services run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netagg_core::{Day, Event, EventType, Granularity};
use netagg_pg::{
    AuditOptions, AuditReport, AuditVerdict, Column, LedgerDifference, LedgerFault, PgTotalsRepair, RebuildOptions,
    TotalsDifference, Undecided,
};
use netagg_testkit::eventually;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::Fresh;
use super::log::{Log, of_content, of_day};

const DAY: &str = "2025-10-20";
const OTHER_DAY: &str = "2025-11-02";

fn day(day: &str) -> Day {
    day.parse().unwrap()
}

async fn audit(fresh: &Fresh, options: AuditOptions) -> AuditReport {
    fresh.postgres.audit().run(&options, &|_| {}).await.unwrap()
}

fn at_once() -> AuditOptions {
    AuditOptions { patience: Duration::ZERO, ..AuditOptions::default() }
}

fn patient() -> AuditOptions {
    AuditOptions { patience: Duration::from_secs(30), ..AuditOptions::default() }
}

/// Checks that nothing differs and nothing is undecided.
fn assert_equal(report: &AuditReport, when: &str) {
    assert_eq!(report.totals, [], "{when}");
    assert_eq!(report.ledgers, [], "{when}");
    assert_eq!(report.undecided, [], "{when}");
    assert!(report.offsets.iter().all(|offsets| offsets.unaccounted() == 0), "{when}: {:?}", report.offsets);
    assert_eq!(report.verdict(), AuditVerdict::Equal, "{when}");
}

/// The differences of a count in the totals of a day and of its month.
fn count_differs(date: &str, event_type: EventType, in_totals: i128, by_events: i128) -> [TotalsDifference; 2] {
    let of_day = TotalsDifference {
        granularity: Granularity::Day,
        date: day(date),
        event_type,
        column: Column::CountEvents,
        in_totals: Some(in_totals),
        by_events: Some(by_events),
        awaits_repair: false,
    };
    let of_month = TotalsDifference { granularity: Granularity::Month, date: day(date).month().first_day(), ..of_day };
    [of_day, of_month]
}

#[tokio::test]
async fn a_drained_topic_has_equal_totals_and_every_difference_is_reported() {
    let fresh = Fresh::migrated().await;
    // Each type has 20 events on each of the two days.
    let log = Log::new(&fresh, (0..200).map(|id| of_day(id, if id < 100 { DAY } else { OTHER_DAY })));
    log.store(0..200).await;
    log.count(0..200).await;
    let report = audit(&fresh, at_once()).await;
    assert_equal(&report, "drained");
    assert_eq!((report.days, report.events, report.uncounted), (2, 200, 0));
    assert_eq!(report.offsets.len(), 2);

    fresh.execute("UPDATE agg_day SET count_events = 21 WHERE day = '2025-10-20' AND type = 'SMS_SENT'").await;
    let expected = count_differs(DAY, EventType::SmsSent, 21, 20);
    let report = audit(&fresh, at_once()).await;
    assert_eq!((report.verdict(), report.days_to_rebuild()), (AuditVerdict::Different, Some((day(DAY), day(DAY)))));
    assert_eq!(report.totals, expected);
    let of_day = AuditOptions { from: Some(day(DAY)), to: Some(day(DAY)), ..at_once() };
    assert_eq!(
        audit(&fresh, of_day).await.totals,
        expected[..1],
        "a range with a part of a month does not compare the month"
    );
    assert_equal(&audit(&fresh, AuditOptions { from: Some(day("2025-10-21")), ..at_once() }).await, "the rest");
    assert_equal(&audit(&fresh, AuditOptions { to: Some(day("2025-10-19")), ..at_once() }).await, "before");
    fresh.execute("UPDATE agg_day SET count_events = 20").await;

    for (damage, in_totals, by_events) in [
        ("DELETE FROM agg_day WHERE day = '2025-10-20' AND type = 'DATA'", None, Some(20)),
        ("INSERT INTO agg_day VALUES ('2025-10-19', 'DATA', 0, 0, 0, 0)", Some(0), None),
        ("INSERT INTO agg_day VALUES ('2024-02-29', 'DATA', 7, 7, 7, 7)", Some(7), None),
    ] {
        fresh.execute(damage).await;
        let report = audit(&fresh, at_once()).await;
        let of_day = |difference: &&TotalsDifference| difference.granularity == Granularity::Day;
        let columns: Vec<_> = report.totals.iter().filter(of_day).collect();
        assert_eq!(columns.len(), 4, "{damage}: {columns:?}");
        assert_eq!((columns[0].in_totals, columns[0].by_events), (in_totals, by_events), "{damage}");
        rebuild(&fresh, &report.totals[0].date.to_string()).await;
        assert_equal(&audit(&fresh, at_once()).await, "rebuilt");
    }

    // Each ledger is compared with the events or with the totals.
    fresh
        .execute(
            "DELETE FROM event_identity WHERE key = (SELECT key FROM event_identity WHERE day = '2025-10-20' LIMIT 1)",
        )
        .await;
    let report = audit(&fresh, at_once()).await;
    assert_eq!(
        report.ledgers,
        [
            LedgerDifference { day: day(DAY), fault: LedgerFault::CountMismatch { identities: 99, events: 100 } },
            LedgerDifference { day: day(DAY), fault: LedgerFault::NeverStored { events: 1 } },
        ]
    );
    fresh.execute("INSERT INTO event_identity TABLE agg_identity ON CONFLICT DO NOTHING").await;
    fresh
        .execute("DELETE FROM agg_identity WHERE key = (SELECT key FROM agg_identity WHERE day = '2025-10-20' LIMIT 1)")
        .await;
    let report = audit(&fresh, at_once()).await;
    let never_counted = LedgerDifference { day: day(DAY), fault: LedgerFault::NeverCounted { events: 1 } };
    assert_eq!((report.totals, report.ledgers), (vec![], vec![never_counted]));
}

async fn rebuild(fresh: &Fresh, of: &str) {
    let options = RebuildOptions::new(day(of), day(of));
    let report = fresh.postgres.rebuild().run(&options, &|_| {}, &CancellationToken::new()).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
}

#[tokio::test]
async fn an_audit_waits_until_the_ingestor_has_stored_the_counted_events() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..200).map(|id| of_day(id, DAY)));
    log.store(0..150).await;
    log.count(0..200).await;
    let report = audit(&fresh, at_once()).await;
    assert_eq!((&*report.totals, &*report.undecided), (&[][..], &[Undecided { day: day(DAY), events: 50 }][..]));

    let (report, ()) = tokio::join!(audit(&fresh, patient()), log.store(150..200));
    assert_equal(&report, "after the ingestor has stored the events");
}

#[tokio::test]
async fn pending_events_do_not_hide_a_difference() {
    let fresh = Fresh::migrated().await;
    // The aggregator has counted three events of each type that the ingestor has not stored.
    let log = Log::new(&fresh, (0..200).map(|id| of_day(id, DAY)));
    log.store(0..185).await;
    log.count(0..200).await;
    // The count is three too low, and three counted events are not stored. So the count equals the number of stored events.
    fresh.execute("UPDATE agg_day SET count_events = count_events - 3 WHERE type = 'DATA'").await;
    let stored: i64 = fresh.value("SELECT count(*) FROM events_raw WHERE type = 'DATA'").await;
    let counted: i64 = fresh.value("SELECT count_events FROM agg_day WHERE type = 'DATA'").await;
    assert_eq!(stored, counted, "a plain comparison finds no difference");
    let (report, ()) = tokio::join!(audit(&fresh, patient()), log.store(185..200));
    assert_eq!(report.totals, count_differs(DAY, EventType::Data, 37, 40));

    // Some events will never be stored: the ingestor has processed their offsets, and the events are gone.
    fresh.execute("UPDATE agg_day SET count_events = 40 WHERE type = 'DATA'").await;
    fresh.execute("DELETE FROM events_raw WHERE type = 'DATA' AND bytes_down = 4").await;
    fresh
        .execute(
            "DELETE FROM event_identity WHERE key NOT IN (
                 SELECT event_key(source_id, event_id) FROM events_raw)",
        )
        .await;
    let report = audit(&fresh, at_once()).await;
    let never_stored = LedgerDifference { day: day(DAY), fault: LedgerFault::NeverStored { events: 1 } };
    assert_eq!(report.ledgers, [never_stored]);
    assert_eq!(report.totals[0], count_differs(DAY, EventType::Data, 40, 39)[0]);
    // With a recreated topic, the processed offsets show nothing, so the day is undecided.
    let report = audit(&fresh, AuditOptions { topic_is_recreated: true, ..at_once() }).await;
    assert_eq!((&*report.totals, &*report.undecided), (&[][..], &[Undecided { day: day(DAY), events: 1 }][..]));
}

#[tokio::test]
async fn events_that_are_not_counted_yet_do_not_hide_a_lost_event() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..200).map(|id| of_day(id, DAY)));
    log.store(0..200).await;
    log.count(0..150).await;
    let report = audit(&fresh, at_once()).await;
    assert_equal(&report, "the events that both services have processed are equal");
    assert_eq!(report.uncounted, 50);
    let impatient = AuditOptions { patience: Duration::from_secs(1), ..AuditOptions::default() };
    let (report, ()) = tokio::join!(audit(&fresh, impatient), log.count(150..180));
    assert_eq!(report.uncounted, 20, "after the whole wait");
    assert_equal(&report, "the events that both services have processed are still equal");

    fresh.execute("UPDATE agg_day SET count_events = count_events + 1 WHERE type = 'DATA'").await;
    let report = audit(&fresh, at_once()).await;
    assert_eq!(report.totals, count_differs(DAY, EventType::Data, 37, 36));
    fresh.execute("UPDATE agg_day SET count_events = count_events - 1 WHERE type = 'DATA'").await;

    // The aggregator passes an event without counting it.
    let (report, ()) = tokio::join!(audit(&fresh, patient()), async {
        log.lose(180..181).await;
        log.count(181..200).await;
    });
    let never_counted = LedgerDifference { day: day(DAY), fault: LedgerFault::NeverCounted { events: 1 } };
    assert_eq!(report.ledgers, [never_counted]);
    let lost = report.totals.iter().find(|difference| difference.column == Column::CountEvents).unwrap();
    assert_eq!(lost.by_events.unwrap() - lost.in_totals.unwrap(), 1);
    let report = audit(&fresh, at_once()).await;
    let lossy: Vec<_> = report.offsets.iter().filter(|offsets| offsets.unaccounted() != 0).collect();
    assert_eq!((lossy.len(), &*lossy[0].service, lossy[0].unaccounted()), (1, "aggregator", 1));
}

#[tokio::test]
async fn a_conflict_is_listed_and_differs_only_if_it_is_not_repaired() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, [of_content(1, DAY, 0), of_content(1, OTHER_DAY, 7), of_day(2, DAY)]);
    log.store(0..3).await;
    log.count(1..2).await;
    log.count(0..1).await;
    log.count(2..3).await;
    let report = audit(&fresh, at_once()).await;
    assert!(!report.totals.is_empty() && report.totals.iter().all(|difference| difference.awaits_repair), "{report:?}");
    assert_eq!(report.conflicts.count, 1);
    let conflict = &report.conflicts.first[0];
    assert_eq!((conflict.kept_day, conflict.dropped_day), (day(DAY), day(OTHER_DAY)));
    assert_eq!(conflict.kept, of_content(1, DAY, 0).content_hash());
    assert_eq!(conflict.dropped, of_content(1, OTHER_DAY, 7).content_hash());
    assert_eq!(conflict.position.as_ref().map(ToString::to_string).as_deref(), Some("events.telecom/0/1"));

    let repair = PgTotalsRepair::new(fresh.postgres.clone());
    let (report, _) = tokio::join!(audit(&fresh, patient()), async {
        use netagg_core::ports::TotalsRepair;
        repair.repair().await.unwrap()
    });
    assert_equal(&report, "after the repair");
    assert_eq!(report.conflicts.count, 1, "the conflict is still listed");
    let elsewhere = AuditOptions { from: Some(day("2025-12-01")), ..at_once() };
    assert_eq!(audit(&fresh, elsewhere).await.conflicts.count, 0);
}

/// Each service has processed only one copy, and not the same copy. So no service has noticed the conflict yet; only the
/// ledgers differ.
#[tokio::test]
async fn a_conflict_that_no_service_has_noticed_yet_is_no_difference() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, [of_content(1, DAY, 0), of_content(1, DAY, 7)]);
    log.store(0..1).await;
    log.count(1..2).await;
    let (report, ()) = tokio::join!(audit(&fresh, patient()), async {
        use netagg_core::ports::TotalsRepair;
        log.store(1..2).await;
        log.count(0..1).await;
        PgTotalsRepair::new(fresh.postgres.clone()).repair().await.unwrap();
    });
    assert_equal(&report, "after the conflict was noticed and repaired");
}

#[tokio::test]
async fn dropped_months_are_left_out() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..20).map(|id| of_day(id, if id < 10 { DAY } else { OTHER_DAY })));
    log.store(0..20).await;
    log.count(0..20).await;
    fresh
        .execute(
            "INSERT INTO settings (name, value) VALUES ('dropped_through', '2025-10'); DROP TABLE events_raw_2025_10;
             DELETE FROM event_identity WHERE day < '2025-11-01'; DELETE FROM agg_identity WHERE day < '2025-11-01'",
        )
        .await;
    let report = audit(&fresh, at_once()).await;
    assert_equal(&report, "the kept month");
    assert_eq!((report.events, report.dropped_through), (10, Some(day(DAY).month())));
    let dropped = AuditOptions { to: Some(day(DAY)), ..at_once() };
    assert_eq!(audit(&fresh, dropped).await.events, 0);
}

/// Both services work all the time, in turn ahead of each other, with conflicts that are repaired. The audit must be correct
/// at every moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn running_services_cause_no_difference_and_hide_none() {
    const CHUNK: usize = 25;
    let fresh = Fresh::migrated().await;
    let mut rng = StdRng::seed_from_u64(11);
    let days = [DAY, "2025-10-21", OTHER_DAY];
    let events: Vec<Event> = (0..10_000_u128)
        .map(|at| {
            // Every seventh id is on a day without conflicts. Every twentieth event repeats an earlier id with other content.
            let id = if at % 20 == 19 { rng.random_range(0..at / 7) * 7 + 1 } else { at };
            let day = if id % 7 == 0 { "2025-11-09" } else { days[rng.random_range(0..3)] };
            of_content(id, day, u64::from(at % 20 == 19))
        })
        .collect();
    let log = Arc::new(Log::new(&fresh, events));
    let stop = Arc::new(AtomicBool::new(false));
    let work = |seed: u64, is_ingestor: bool| {
        let (log, stop) = (log.clone(), stop.clone());
        async move {
            let mut rng = StdRng::seed_from_u64(seed);
            for chunk in 0..log.len() / CHUNK {
                let offsets = chunk * CHUNK..(chunk + 1) * CHUNK;
                if is_ingestor {
                    log.store(offsets).await
                } else {
                    log.count(offsets).await
                }
                if !stop.load(Ordering::Relaxed) && rng.random_range(0..4) == 0 {
                    tokio::time::sleep(Duration::from_millis(rng.random_range(0..80))).await;
                }
            }
        }
    };
    let repairing = async {
        use netagg_core::ports::TotalsRepair;
        let repair = PgTotalsRepair::new(fresh.postgres.clone());
        while !stop.load(Ordering::Relaxed) {
            repair.repair().await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let auditing = async {
        for round in 0..6 {
            let report = audit(&fresh, patient()).await;
            assert_equal(&report, &format!("round {round}"));
        }
        // A wrong count on a day that both services write to and that no repair corrects. And an identity whose event no
        // service will store.
        fresh
            .execute(
                "UPDATE agg_day SET count_events = count_events + 1 WHERE day = '2025-11-09' AND type = 'DATA';
                 INSERT INTO agg_identity VALUES (gen_random_uuid(), 1, '2025-12-24')",
            )
            .await;
        // The audit waits for the event that is never stored. On a slow machine other days may be undecided after the wait.
        let brief = || AuditOptions { patience: Duration::from_secs(3), ..AuditOptions::default() };
        let unmatched_days = |report: &AuditReport| -> Vec<_> {
            let ledgers = report.ledgers.iter().map(|ledger| ledger.day);
            ledgers.chain(report.undecided.iter().map(|undecided| undecided.day)).collect()
        };
        let report = eventually(Duration::from_secs(120), "only the added identity is unmatched", async || {
            let report = audit(&fresh, brief()).await;
            if unmatched_days(&report) == [day("2025-12-24")] { Ok(report) } else { Err(format!("{report:?}")) }
        })
        .await;
        let [found] =
            &report.totals.iter().filter(|found| found.granularity == Granularity::Day).collect::<Vec<_>>()[..]
        else {
            panic!("{report:?}")
        };
        assert_eq!((found.date, found.column), (day("2025-11-09"), Column::CountEvents));
        assert_eq!(found.in_totals.unwrap() - found.by_events.unwrap(), 1);
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(work(1, true), work(2, false), repairing, auditing);
}

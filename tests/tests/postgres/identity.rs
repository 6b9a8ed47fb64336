//! Each identity is stored and counted once, however often it comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::NaiveDate;
use futures::future::join_all;
use netagg_core::ports::{AggregateStore, EventStore};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Contribution, Event, EventType, sum_by_day};
use netagg_pg::{PgAggregateStore, PgEventStore};

use super::{Fresh, at, contributions, events};

/// The SQL expression of the key, as `EventKey` documents it.
const KEY: &str = "encode(substring(sha256(int4send(octet_length(source_id)) || convert_to(source_id, 'UTF8')
                   || uuid_send(event_id)) for 16), 'hex')::uuid";

#[tokio::test]
async fn the_ledger_and_the_events_join_by_the_documented_function() {
    let fresh = Fresh::migrated().await;
    let sources = ["a", "ж", "provider \u{1F600}", &"ü".repeat(128)];
    let stored: Vec<Event> =
        sources.iter().map(|source| event(EventTemplate { source, ..EventTemplate::default() })).collect();
    PgEventStore::new(fresh.postgres.clone()).store(&events(stored)).await.unwrap();
    let query = format!(
        "SELECT count(*) FROM events_raw JOIN event_identity ON key = {KEY} AND key = event_key(source_id, event_id) \
         WHERE day = (started_at AT TIME ZONE 'UTC')::date"
    );
    let joined: i64 =
        sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&mut fresh.connection().await).await.unwrap();
    assert_eq!(joined, sources.len() as i64);
}

#[tokio::test]
async fn a_conflict_marks_the_days_of_both_copies_once_in_both_stores() {
    let first = at(1, "2025-10-20T00:00:00Z");
    let in_same_batch = at(1, "2025-10-21T00:00:00Z");
    let in_later_batch = at(1, "2025-12-24T00:00:00Z");
    let plain = at(2, "2025-10-25T00:00:00Z");
    let all = [&[first.clone(), in_same_batch, plain.clone()][..], &[in_later_batch.clone(), plain], &[in_later_batch]];

    for aggregates in [false, true] {
        let fresh = Fresh::migrated().await;
        for batch in all {
            if aggregates {
                let store = PgAggregateStore::new(fresh.postgres.clone());
                assert_eq!(store.add(&contributions(batch.to_vec())).await.unwrap().conflicts.len(), 1);
            } else {
                let store = PgEventStore::new(fresh.postgres.clone());
                assert_eq!(store.store(&events(batch.to_vec())).await.unwrap().conflicts.len(), 1);
            }
        }
        let marked: Vec<NaiveDate> = sqlx::query_scalar("SELECT day FROM agg_dirty_day ORDER BY day")
            .fetch_all(&mut fresh.connection().await)
            .await
            .unwrap();
        let marked: Vec<String> = marked.iter().map(NaiveDate::to_string).collect();
        assert_eq!(marked, ["2025-10-20", "2025-10-21", "2025-12-24"]);
    }
}

#[tokio::test]
async fn duplicates_are_found_in_every_position_and_at_every_share() {
    let fresh = Fresh::migrated().await;
    let (store, totals) = (PgEventStore::new(fresh.postgres.clone()), PgAggregateStore::new(fresh.postgres.clone()));
    let make = |id: u128| at(id, &format!("2025-{:02}-10T00:00:00Z", 1 + id % 12));
    // The known events of a batch are: none, the first events, the last events, all events, and none again.
    let ranges = [0..100, 0..150, 100..300, 50..120, 0..300, 299..301, 300..301, 400..500];
    let mut seen = std::collections::HashSet::new();
    for range in ranges {
        let batch: Vec<Event> = range.clone().map(make).collect();
        let new = range.clone().filter(|id| seen.insert(*id)).count() as u64;
        let known = batch.len() as u64 - new;
        let outcome = store.store(&events(batch.clone())).await.unwrap();
        assert_eq!((outcome.new, outcome.duplicates), (new, known), "stored {range:?}");
        let outcome = totals.add(&contributions(batch)).await.unwrap();
        assert_eq!((outcome.new, outcome.duplicates), (new, known), "counted {range:?}");
    }
    let expected = seen.len() as i64;
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, expected);
    assert_eq!(fresh.value::<i64>("SELECT sum(count_events)::bigint FROM agg_month").await, expected);
}

/// Eight concurrent writers. Their batches overlap by three quarters, and each identity has up to three contents on two days.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_batches_with_conflicts_keep_one_copy_of_each_identity_and_exact_totals() {
    let fresh = Fresh::migrated().await;
    let store = Arc::new(PgEventStore::new(fresh.postgres.clone()));
    let totals = Arc::new(PgAggregateStore::new(fresh.postgres.clone()));
    let make = |id: u128, content: u128| {
        event(EventTemplate {
            id,
            started_at: if content == 1 { "2025-10-31T12:00:00Z" } else { "2025-11-01T12:00:00Z" },
            event_type: EventType::ALL[(id % 5) as usize],
            bytes_up: 1 + content as u64,
            ..EventTemplate::default()
        })
    };
    let tasks = (0..8_u128).map(|writer| {
        let (store, totals) = (store.clone(), totals.clone());
        tokio::spawn(async move {
            let mut new = (0, 0);
            for round in 0..8_u128 {
                let batch: Vec<Event> = (round * 100..round * 100 + 400)
                    .filter(|id| (id + writer) % 4 != 0)
                    .map(|id| make(id, if id % 50 == 0 { writer % 3 } else { 0 }))
                    .collect();
                new.0 += store.store(&events(batch.clone())).await.unwrap().new;
                new.1 += totals.add(&contributions(batch)).await.unwrap().new;
            }
            new
        })
    });
    let new = join_all(tasks).await.into_iter().map(Result::unwrap);
    let new = new.fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
    assert_eq!(new, (1_100, 1_100), "each identity is new once in each ledger");

    let duplicated = format!("SELECT count(*) - count(DISTINCT {KEY}) FROM events_raw");
    let duplicated: i64 =
        sqlx::query_scalar(sqlx::AssertSqlSafe(duplicated)).fetch_one(&mut fresh.connection().await).await.unwrap();
    assert_eq!(duplicated, 0);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 1_100);
    // The totals of each day match the ledger. The days of conflicts are marked for repair.
    let by_day: Vec<(NaiveDate, i64)> =
        sqlx::query_as("SELECT day, sum(count_events)::bigint FROM agg_day GROUP BY 1 ORDER BY 1")
            .fetch_all(&mut fresh.connection().await)
            .await
            .unwrap();
    let ledger: Vec<(NaiveDate, i64)> = sqlx::query_as("SELECT day, count(*) FROM agg_identity GROUP BY 1 ORDER BY 1")
        .fetch_all(&mut fresh.connection().await)
        .await
        .unwrap();
    assert_eq!(by_day, ledger);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_dirty_day").await, 2);
}

#[tokio::test]
async fn totals_equal_the_sums_over_the_events() {
    let fresh = Fresh::migrated().await;
    let make = |id: u128| {
        event(EventTemplate {
            id,
            started_at: &format!("2025-{:02}-{:02}T23:59:59.999999Z", 1 + id % 12, 1 + id % 28),
            event_type: EventType::ALL[(id % 5) as usize],
            duration_sec: (!id.is_multiple_of(3)).then_some(id as u32),
            bytes_up: u64::MAX >> 1,
            bytes_down: id as u64,
            ..EventTemplate::default()
        })
    };
    let all: Vec<Event> = (0..500).map(make).collect();
    for chunk in all.chunks(90) {
        PgEventStore::new(fresh.postgres.clone()).store(&events(chunk.to_vec())).await.unwrap();
        PgAggregateStore::new(fresh.postgres.clone()).add(&contributions(chunk.to_vec())).await.unwrap();
    }
    let differences = "WITH raw AS (
            SELECT (started_at AT TIME ZONE 'UTC')::date AS day, type, count(*) AS count_events,
                   coalesce(sum(duration_sec), 0) AS sum_duration,
                   sum(bytes_up) AS sum_bytes_up, sum(bytes_down) AS sum_bytes_down
            FROM events_raw GROUP BY 1, 2),
        agg AS (SELECT day, type, count_events, sum_duration, sum_bytes_up, sum_bytes_down FROM agg_day)
        SELECT (SELECT count(*) FROM (TABLE raw EXCEPT TABLE agg) AS missing)
             + (SELECT count(*) FROM (TABLE agg EXCEPT TABLE raw) AS wrong)";
    assert_eq!(fresh.value::<i64>(differences).await, 0);
    let contributions: Vec<Contribution> = all.iter().map(Contribution::of).collect();
    let expected: BTreeMap<_, _> = sum_by_day(&contributions);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_day").await, expected.len() as i64);
}

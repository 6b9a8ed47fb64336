//! A month partition is created when its first event comes, without blocking readers or writers.

use std::sync::Arc;

use futures::future::join_all;
use netagg_core::ports::EventStore;
use netagg_pg::{Ahead, PgEventStore, Postgres, SetAside};

use super::{Fresh, at, connect, events};

async fn names(postgres: &Postgres) -> Vec<String> {
    postgres.partitions().list().await.unwrap().into_iter().map(|partition| partition.name).collect()
}

#[tokio::test]
async fn the_earliest_and_the_latest_month_have_partitions() {
    let fresh = Fresh::migrated().await;
    let times = ["0001-01-01T00:00:00Z", "0999-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"];
    let stored = times.iter().enumerate().map(|(id, time)| at(id as u128, time));
    assert_eq!(PgEventStore::new(fresh.postgres.clone()).store(&events(stored)).await.unwrap().new, 4);
    assert_eq!(
        names(&fresh.postgres).await,
        ["events_raw_0001_01", "events_raw_0999_12", "events_raw_1970_01", "events_raw_9999_12"]
    );
    assert_eq!(
        fresh.value::<i64>("SELECT count(*) FROM pg_partitioned_table WHERE partdefid <> 0").await,
        0,
        "there is no default partition"
    );
}

#[tokio::test]
async fn partitions_are_created_ahead_once() {
    let fresh = Fresh::migrated().await;
    let partitions = fresh.postgres.partitions();
    let now = "2025-11-30T23:59:59Z".parse().unwrap();
    let ahead = partitions.ensure_ahead(now, 3).await.unwrap();
    assert_eq!(
        ahead.made.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["2025-11", "2025-12", "2026-01", "2026-02"]
    );
    assert_eq!(partitions.ensure_ahead(now, 3).await.unwrap(), Ahead::default());
    assert_eq!(fresh.postgres.partitions().ensure_ahead(now, 3).await.unwrap(), Ahead::default());
    let listed = partitions.list().await.unwrap();
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().all(|partition| partition.bytes > 0 && partition.estimated_rows.is_none()));
    assert_eq!(
        fresh.value::<i64>("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events_raw_timeline'::regclass").await,
        4,
        "each partition has the index"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_writers_that_need_the_same_months_create_each_partition_once() {
    let fresh = Fresh::migrated().await;
    let tasks = (0..8_u128).map(|writer| {
        // Each writer has its own pool and its own list of known partitions, like a separate program.
        let store = PgEventStore::new(connect(fresh.database.url()));
        tokio::spawn(async move {
            let months = (1..=12).map(|month| at(writer * 100 + month, &format!("2024-{month:02}-28T12:00:00Z")));
            store.store(&events(months)).await.unwrap().new
        })
    });
    assert_eq!(join_all(tasks).await.into_iter().map(Result::unwrap).sum::<u64>(), 96);
    assert_eq!(names(&fresh.postgres).await.len(), 12);
}

#[tokio::test]
async fn creating_a_partition_waits_for_no_reader_and_no_writer() {
    let fresh = Fresh::migrated().await;
    let store = PgEventStore::new(fresh.postgres.clone());
    store.store(&events([at(1, "2025-10-20T00:00:00Z")])).await.unwrap();
    let mut other = fresh.connection().await;
    sqlx::raw_sql(
        "BEGIN; SELECT count(*) FROM events_raw;
         INSERT INTO events_raw SELECT 's', gen_random_uuid(), 'u', 'DATA', '2025-10-01Z', NULL, NULL, 0, 0, NULL",
    )
    .execute(&mut other)
    .await
    .unwrap();
    // The other transaction stays open during this call.
    store.store(&events([at(2, "2025-11-20T00:00:00Z")])).await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 3);
}

#[tokio::test]
async fn a_store_notices_that_a_partition_was_dropped_or_detached() {
    let fresh = Fresh::migrated().await;
    let store = Arc::new(PgEventStore::new(fresh.postgres.clone()));
    store.store(&events([at(1, "2025-10-20T00:00:00Z")])).await.unwrap();
    fresh.execute("DROP TABLE events_raw_2025_10").await;
    assert_eq!(store.store(&events([at(2, "2025-10-21T00:00:00Z")])).await.unwrap().new, 1);

    fresh.execute("ALTER TABLE events_raw DETACH PARTITION events_raw_2025_10").await;
    assert_eq!(store.store(&events([at(3, "2025-10-22T00:00:00Z")])).await.unwrap().new, 1);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 0);
    fresh.execute("ALTER TABLE events_raw_2025_10 RENAME TO put_aside").await;
    assert_eq!(fresh.postgres.partitions().store_set_aside().await.unwrap().stored, 1);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 1);
}

/// The number of events in `events_raw`, in `events_set_aside` and in the ledger.
async fn counts(fresh: &Fresh) -> (i64, i64, i64) {
    (
        fresh.value("SELECT count(*) FROM events_raw").await,
        fresh.value("SELECT count(*) FROM events_set_aside").await,
        fresh.value("SELECT count(*) FROM event_identity").await,
    )
}

#[tokio::test]
async fn events_of_a_month_without_a_partition_are_set_aside_and_stored_once_it_can_be_made() {
    let fresh = Fresh::migrated().await;
    let store = PgEventStore::new(fresh.postgres.clone());
    let [march, april] = [at(1, "2025-03-10T00:00:00Z"), at(2, "2025-04-10T00:00:00Z")];
    store.store(&events([march.clone()])).await.unwrap();
    fresh.execute("ALTER TABLE events_raw DETACH PARTITION events_raw_2025_03").await;

    // Events of other months in the same batch are stored. A copy is a duplicate, also if the first copy is set aside.
    let late = at(3, "2025-03-31T23:59:59.999999Z");
    let outcome = store.store(&events([late.clone(), april.clone()])).await.unwrap();
    assert_eq!((outcome.new, outcome.duplicates), (2, 0));
    assert_eq!(counts(&fresh).await, (1, 1, 3));
    let outcome = store.store(&events([late, april, march, at(4, "2025-03-20T00:00:00Z")])).await.unwrap();
    assert_eq!((outcome.new, outcome.duplicates), (1, 3));
    assert_eq!(counts(&fresh).await, (1, 2, 4));

    let partitions = fresh.postgres.partitions();
    let SetAside { stored, waiting, .. } = partitions.store_set_aside().await.unwrap();
    assert_eq!(
        (stored, waiting.len(), waiting[0].month.to_string(), waiting[0].events),
        (0, 1, "2025-03".to_owned(), 2)
    );
    let reason = waiting[0].reason.as_deref().unwrap();
    assert!(reason.contains("events_raw_2025_03 cannot be made") && reason.contains("attach"), "{reason}");
    assert!(!reason.contains("at line") && !reason.contains("returned from database"), "{reason}");
    let ahead = partitions.ensure_ahead("2025-02-28T00:00:00Z".parse().unwrap(), 2).await.unwrap();
    assert_eq!(ahead.made.iter().map(ToString::to_string).collect::<Vec<_>>(), ["2025-02"]);
    assert_eq!(ahead.not_made, [(waiting[0].month, reason.to_owned())]);
    assert_eq!(partitions.set_aside().await.unwrap()[0].events, 2);

    fresh
        .execute(
            "ALTER TABLE events_raw ATTACH PARTITION events_raw_2025_03 \
             FOR VALUES FROM ('2025-03-01Z') TO ('2025-04-01Z')",
        )
        .await;
    // This process tries again only some time after the failed attempt. Another process tries at once.
    let outcome = fresh.postgres.partitions().store_set_aside().await.unwrap();
    assert_eq!((outcome.stored, outcome.waiting), (2, Vec::new()));
    assert_eq!(counts(&fresh).await, (4, 0, 4));
    let marked: String = fresh.value("SELECT string_agg(day::text, ' ' ORDER BY day) FROM agg_dirty_day").await;
    assert_eq!(marked, "2025-03-20 2025-03-31", "an earlier repair may have used events_raw without these events");
    let timeline: i64 = fresh.value("SELECT count(*) FROM events_raw_2025_03").await;
    assert_eq!(timeline, 3);
}

#[tokio::test]
async fn partitions_with_other_bounds_are_used() {
    let fresh = Fresh::migrated().await;
    fresh
        .execute(
            "CREATE TABLE year_2023 PARTITION OF events_raw FOR VALUES FROM (MINVALUE) TO ('2024-01-01Z');
             CREATE TABLE week PARTITION OF events_raw FOR VALUES FROM ('2024-05-06 02:00+02') TO ('2024-05-13Z')",
        )
        .await;
    let store = PgEventStore::new(fresh.postgres.clone());
    let times = [
        "2023-07-01T00:00:00Z",
        "2024-05-06T00:00:00Z",
        "2024-05-12T23:59:59Z",
        "2024-05-13T00:00:00Z",
        "2024-06-01T00:00:00Z",
    ];
    let all = || events((1..).zip(times).map(|(id, time)| at(id, time)));
    assert_eq!(store.store(&all()).await.unwrap().new, 5);
    assert_eq!(counts(&fresh).await, (4, 1, 5), "only the event after the week has no partition");
    assert_eq!(names(&fresh.postgres).await, ["events_raw_2024_06"]);
    fresh.execute("CREATE TABLE rest PARTITION OF events_raw FOR VALUES FROM ('2024-05-13Z') TO ('2024-05-20Z')").await;
    let outcome = fresh.postgres.partitions().store_set_aside().await.unwrap();
    assert_eq!((outcome.stored, outcome.waiting), (1, Vec::new()));
    assert_eq!(counts(&fresh).await, (5, 0, 5));
    // The default partition takes all other rows.
    fresh.execute("CREATE TABLE others PARTITION OF events_raw DEFAULT").await;
    let store = PgEventStore::new(fresh.postgres.clone());
    assert_eq!(
        store.store(&events([at(9, "2024-05-29T00:00:00Z"), at(10, "2022-05-29T00:00:00Z")])).await.unwrap().new,
        2
    );
    assert_eq!(counts(&fresh).await, (7, 0, 7));
}

#[tokio::test]
async fn a_partition_that_cannot_be_created_affects_only_its_own_month() {
    for obstacle in [
        "CREATE VIEW events_raw_2025_03 AS SELECT 1",
        "CREATE TABLE events_raw_2025_03 (other int)",
        "CREATE SEQUENCE events_raw_2025_03",
        "CREATE TABLE first_half PARTITION OF events_raw FOR VALUES FROM ('2025-03-01Z') TO ('2025-03-15Z')",
        "CREATE TABLE others PARTITION OF events_raw FOR VALUES FROM ('2025-02-20Z') TO ('2025-03-05Z')",
    ] {
        let fresh = Fresh::migrated().await;
        fresh.execute(obstacle).await;
        let store = PgEventStore::new(fresh.postgres.clone());
        let outcome =
            store.store(&events([at(1, "2025-03-20T00:00:00Z"), at(2, "2025-04-20T00:00:00Z")])).await.unwrap();
        assert_eq!(outcome.new, 2, "{obstacle}");
        assert_eq!(counts(&fresh).await, (1, 1, 2), "{obstacle}");
    }
}

//! Months get their partition when they need one, without holding anybody up.

use std::sync::Arc;

use futures::future::join_all;
use netagg_core::Error;
use netagg_core::ports::EventStore;
use netagg_pg::{PgEventStore, Postgres};

use super::{Fresh, at, connect, events};

async fn names(postgres: &Postgres) -> Vec<String> {
    postgres.partitions().list().await.unwrap().into_iter().map(|partition| partition.name).collect()
}

#[tokio::test]
async fn the_earliest_and_the_latest_month_have_their_place() {
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
async fn partitions_are_made_ahead_once() {
    let fresh = Fresh::migrated().await;
    let partitions = fresh.postgres.partitions();
    let now = "2025-11-30T23:59:59Z".parse().unwrap();
    let made = partitions.ensure_ahead(now, 3).await.unwrap();
    assert_eq!(made.iter().map(ToString::to_string).collect::<Vec<_>>(), ["2025-11", "2025-12", "2026-01", "2026-02"]);
    assert_eq!(partitions.ensure_ahead(now, 3).await.unwrap(), []);
    assert_eq!(fresh.postgres.partitions().ensure_ahead(now, 3).await.unwrap(), []);
    let listed = partitions.list().await.unwrap();
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().all(|partition| partition.bytes > 0 && partition.estimated_rows.is_none()));
    assert_eq!(
        fresh.value::<i64>("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events_raw_timeline'::regclass").await,
        4,
        "each has the index"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_writers_that_need_the_same_months_make_them_once() {
    let fresh = Fresh::migrated().await;
    let tasks = (0..8_u128).map(|writer| {
        // Each with a pool and a cache of its own, as programs have.
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
async fn making_one_waits_for_no_reader_and_no_writer() {
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
    // The other transaction is open all the while.
    store.store(&events([at(2, "2025-11-20T00:00:00Z")])).await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 3);
}

#[tokio::test]
async fn a_partition_that_has_gone_is_noticed() {
    let fresh = Fresh::migrated().await;
    let store = Arc::new(PgEventStore::new(fresh.postgres.clone()));
    store.store(&events([at(1, "2025-10-20T00:00:00Z")])).await.unwrap();
    fresh.execute("DROP TABLE events_raw_2025_10").await;
    assert_eq!(store.store(&events([at(2, "2025-10-21T00:00:00Z")])).await.unwrap().new, 1);

    fresh.execute("ALTER TABLE events_raw DETACH PARTITION events_raw_2025_10").await;
    let error = store.store(&events([at(3, "2025-10-22T00:00:00Z")])).await.unwrap_err();
    assert!(matches!(error, Error::NotSetUp { .. }) && error.to_string().contains("events_raw_2025_10"), "{error}");
    fresh.execute("ALTER TABLE events_raw_2025_10 RENAME TO put_aside").await;
    assert_eq!(store.store(&events([at(3, "2025-10-22T00:00:00Z")])).await.unwrap().new, 1);
}

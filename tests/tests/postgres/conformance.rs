//! The adapters of `netagg-pg` pass the conformance suites of their ports.

use std::sync::{Arc, Mutex};

use netagg_core::PartitionId;
use netagg_core::testkit;
use netagg_pg::{PgAggregateStore, PgApiKeys, PgCombinedStore, PgEventStore, PgTotalsRepair};

use super::{Fresh, connect};

#[tokio::test(flavor = "multi_thread")]
async fn the_event_store_conforms() {
    let databases = Mutex::new(Vec::new());
    testkit::event_store(async || {
        let fresh = Fresh::migrated().await;
        let store = Arc::new(PgEventStore::new(fresh.postgres.clone()));
        databases.lock().unwrap().push(fresh);
        store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aggregate_store_conforms() {
    let databases = Mutex::new(Vec::new());
    testkit::aggregate_store(async || {
        let fresh = Fresh::migrated().await;
        let store = Arc::new(PgAggregateStore::new(fresh.postgres.clone()));
        databases.lock().unwrap().push(fresh);
        store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_combined_store_conforms() {
    let databases = Mutex::new(Vec::new());
    testkit::combined_store(async || {
        let fresh = Fresh::combined().await;
        let store = Arc::new(PgCombinedStore::new(fresh.postgres.clone()));
        databases.lock().unwrap().push(fresh);
        store
    })
    .await;
}

/// The offsets that `service` has recorded as processed.
async fn done(fresh: &Fresh, service: &str, partition: &PartitionId) -> Vec<std::ops::Range<i64>> {
    let ranges: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT lower(range), upper(range) FROM consumer_progress, unnest(done) AS range
         WHERE service = $1 AND topic = $2 AND partition = $3 ORDER BY 1",
    )
    .bind(service)
    .bind(&*partition.topic)
    .bind(partition.number)
    .fetch_all(&mut fresh.connection().await)
    .await
    .unwrap();
    ranges.into_iter().map(|(from, to)| from..to).collect()
}

#[tokio::test]
async fn events_and_progress_are_kept_when_the_store_is_opened_again() {
    let fresh = Fresh::migrated().await;
    testkit::event_store_reopened(
        async || Arc::new(PgEventStore::new(connect(fresh.database.url()))),
        async |partition| done(&fresh, PgEventStore::SERVICE, partition).await,
    )
    .await;
}

#[tokio::test]
async fn events_totals_and_progress_are_kept_when_the_combined_store_is_opened_again() {
    let fresh = Fresh::combined().await;
    testkit::event_store_reopened(
        async || Arc::new(PgCombinedStore::new(connect(fresh.database.url()))),
        async |partition| done(&fresh, PgCombinedStore::SERVICE, partition).await,
    )
    .await;
    assert_eq!(fresh.value::<i64>("SELECT sum(count_events)::bigint FROM agg_day").await, 5);
}

#[tokio::test]
async fn totals_and_progress_are_kept_when_the_store_is_opened_again() {
    let fresh = Fresh::migrated().await;
    testkit::aggregate_store_reopened(
        async || Arc::new(PgAggregateStore::new(connect(fresh.database.url()))),
        async |partition| done(&fresh, PgAggregateStore::SERVICE, partition).await,
    )
    .await;
}

#[tokio::test]
async fn the_repair_of_totals_conforms() {
    let databases = Mutex::new(Vec::new());
    testkit::totals_repair(async || {
        let fresh = Fresh::migrated().await;
        let postgres = fresh.postgres.clone();
        databases.lock().unwrap().push(fresh);
        testkit::RepairedStores {
            events: Arc::new(PgEventStore::new(postgres.clone())),
            totals: Arc::new(PgAggregateStore::new(postgres.clone())),
            repair: Arc::new(PgTotalsRepair::new(postgres)),
        }
    })
    .await;
}

#[tokio::test]
async fn the_completeness_store_conforms() {
    let fresh = Fresh::migrated().await;
    let totals = PgAggregateStore::new(fresh.postgres.clone());
    testkit::completeness_store(&fresh.postgres, &totals, PgAggregateStore::SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_keys_conform() {
    let databases = Mutex::new(Vec::new());
    netagg_api::testkit::api_keys(async || {
        let fresh = Fresh::migrated().await;
        let keys = Arc::new(PgApiKeys::new(fresh.postgres.clone()));
        databases.lock().unwrap().push(fresh);
        keys
    })
    .await;
}

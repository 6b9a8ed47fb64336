//! The behaviours that every adapter of the ports has.

use std::sync::{Arc, Mutex};

use netagg_core::testkit;
use netagg_pg::{PgAggregateStore, PgApiKeys, PgEventStore};

use super::Fresh;

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

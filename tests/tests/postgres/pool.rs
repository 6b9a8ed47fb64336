//! Stores on a connection pool of the application.

use std::time::Duration;

use netagg_core::ports::{AggregateStore, EventStore};
use netagg_pg::{PgAggregateStore, PgConfig, PgEventStore, Postgres, sqlx};
use netagg_testkit::postgres::database;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::{PATIENCE, at, contributions, events};

fn pool(url: &str) -> PgPool {
    let options = PgConfig::new(url.parse().unwrap()).connect_options().application_name("an application");
    PgPoolOptions::new().max_connections(2).acquire_timeout(PATIENCE).connect_lazy_with(options)
}

#[tokio::test]
async fn stores_work_on_a_pool_of_the_application() {
    let database = database().await;
    let pool = pool(database.url());
    let postgres = Postgres::from_pool(pool.clone());
    postgres.migrations().up().await.unwrap();
    let batch = [at(1, "2025-10-20T12:00:00Z"), at(2, "2025-11-20T12:00:00Z"), at(1, "2025-10-20T12:00:00Z")];
    // The application uses the same pool, and keeps its transaction open.
    let mut transaction = pool.begin().await.unwrap();
    let name: String =
        sqlx::query_scalar("SELECT current_setting('application_name')").fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(name, "an application");
    let stored = PgEventStore::new(postgres.clone()).store(&events(batch.clone())).await.unwrap();
    let counted = PgAggregateStore::new(postgres.clone()).add(&contributions(batch)).await.unwrap();
    assert_eq!((stored.new, stored.duplicates), (2, 1));
    assert_eq!((counted.new, counted.duplicates), (2, 1));
    assert_eq!(postgres.pool_use().max, 2);
    transaction.commit().await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events_raw").fetch_one(&pool).await.unwrap();
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_call_times_out_while_the_application_holds_all_connections() {
    let database = database().await;
    let pool = pool(database.url());
    let postgres = Postgres::from_pool(pool.clone()).with_call_timeout(Duration::from_millis(300));
    let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let error = postgres.ping().await.unwrap_err();
    assert!(error.is_retryable());
    let message = error.to_string();
    assert!(message.contains("within 300ms") && !message.contains("app_password"), "{message}");
    drop(held);
    Postgres::from_pool(pool).ping().await.unwrap();
}

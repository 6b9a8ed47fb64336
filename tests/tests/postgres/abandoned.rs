//! The server ends the statement of a call that its caller has dropped.

use std::time::Duration;

use netagg_core::ports::{EventStore, TimelineFilter};
use netagg_core::{Timestamp, UserId};
use netagg_pg::{PgEventStore, Postgres};
use netagg_testkit::eventually;
use sqlx::Connection;

use super::{Fresh, config};

const PATIENCE: Duration = Duration::from_secs(60);
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name = 'abandoned' AND datname = current_database() AND state = 'active'";

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_ends_its_statement_on_the_server() {
    let fresh = Fresh::migrated().await;
    let never = Duration::from_secs(24 * 60 * 60);
    let reads = Postgres::new(config(fresh.database.url().parse().unwrap(), |config| {
        // With these values, no timeout ends the statement.
        config.call_timeout = never;
        config.statement_timeout = never;
        config.lock_timeout = never;
        config.client_check_interval = Some(Duration::from_millis(100));
        "abandoned".clone_into(&mut config.application_name);
    }));
    let mut holder = fresh.connection().await;
    let mut lock = holder.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE events_raw").execute(&mut *lock).await.unwrap();

    let store = PgEventStore::new(reads);
    let call = tokio::spawn(async move {
        let user_id = UserId::new("7").unwrap();
        let filter = TimelineFilter { user_id, from: Timestamp::MIN, to: Timestamp::MAX, event_type: None };
        store.count(&filter).await
    });
    let wait_for = async |expected: i64| {
        eventually(PATIENCE, &format!("{expected} statements wait for the lock"), async || {
            let waiting: i64 = fresh.value(WAITING).await;
            if waiting == expected { Ok(()) } else { Err(waiting.to_string()) }
        })
        .await;
    };
    wait_for(1).await;
    call.abort();
    wait_for(0).await;
    lock.rollback().await.unwrap();
}

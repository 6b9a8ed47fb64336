//! An application can write in the transaction that stores events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::try_join_all;
use netagg_core::async_trait::async_trait;
use netagg_core::ports::EventStore;
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Batch, Error, Event, IdentifiedEvent};
use netagg_pg::{PgEventStore, StoreHook};
use sqlx::PgConnection;

use super::Fresh;

/// A hook that counts events by user. It fails if `fails` is set. The first call is slow if `is_slow` is set.
#[derive(Debug, Default)]
struct EventsByUser {
    fails: AtomicBool,
    is_slow: AtomicBool,
}

#[async_trait]
impl StoreHook for EventsByUser {
    async fn stored(&self, connection: &mut PgConnection, events: &[&Event]) -> Result<(), sqlx::Error> {
        if self.is_slow.swap(false, Relaxed) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let mut counts = BTreeMap::<&str, i64>::new();
        for event in events {
            *counts.entry(event.fields().user_id.as_str()).or_default() += 1;
        }
        let (users, counts): (Vec<_>, Vec<_>) = counts.into_iter().unzip();
        sqlx::query(
            "INSERT INTO events_by_user SELECT * FROM unnest($1::text[], $2::bigint[])
             ON CONFLICT (user_id) DO UPDATE SET events = events_by_user.events + excluded.events",
        )
        .bind(users)
        .bind(counts)
        .execute(&mut *connection)
        .await?;
        if self.fails.load(Relaxed) {
            sqlx::query("SELECT 1 / 0").execute(connection).await?;
        }
        Ok(())
    }
}

fn batch(ids: impl Iterator<Item = u128>) -> Batch<IdentifiedEvent> {
    let event = |id: u128| {
        let user = format!("user-{}", id % 3);
        IdentifiedEvent::from(event(EventTemplate { id, user: &user, ..EventTemplate::default() }))
    };
    Batch::new(ids.map(event).collect())
}

async fn with_table() -> Fresh {
    let fresh = Fresh::migrated().await;
    fresh.execute("CREATE TABLE events_by_user (user_id text PRIMARY KEY, events bigint NOT NULL)").await;
    fresh
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_may_lock_rows_that_an_earlier_batch_with_the_same_events_needs() {
    let fresh = with_table().await;
    let hook = Arc::new(EventsByUser::default());
    let store = PgEventStore::new(fresh.postgres.clone()).with_hook(hook.clone());
    hook.is_slow.store(true, Relaxed);
    // The second batch waits for the first batch, because they share events. Meanwhile the hook of the first batch is slow.
    let second = async {
        while hook.is_slow.load(Relaxed) {
            tokio::task::yield_now().await;
        }
        store.store(&batch(50..150)).await
    };
    let first = async { store.store(&batch(0..100)).await };
    let (first, second) = futures::join!(first, second);
    assert_eq!((first.unwrap().new, second.unwrap().new), (100, 50));
    assert_eq!(fresh.value::<i64>("SELECT sum(events)::bigint FROM events_by_user").await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_counts_each_stored_event_once() {
    let fresh = with_table().await;
    let hook = Arc::new(EventsByUser::default());
    let store = PgEventStore::new(fresh.postgres.clone()).with_hook(hook.clone());
    let counted = async || -> i64 { fresh.value("SELECT coalesce(sum(events), 0)::bigint FROM events_by_user").await };

    // If the hook fails, the events are not stored either.
    hook.fails.store(true, Relaxed);
    let error = store.store(&batch(0..30)).await.unwrap_err();
    // The error must not be `Refused`, because then valid events would become dead letters.
    assert!(matches!(error, Error::Internal { .. }) && error.to_string().contains("hook"), "{error:?}");
    hook.fails.store(false, Relaxed);
    assert_eq!((counted().await, fresh.value::<i64>("SELECT count(*) FROM events_raw").await), (0, 0));

    // Overlapping batches are stored concurrently, in any order, and then all again.
    for _ in 0..2 {
        try_join_all((0..8_u128).map(async |first| store.store(&batch(first * 50..first * 50 + 100)).await))
            .await
            .unwrap();
    }
    assert_eq!(counted().await, 450);
    let differing = "SELECT count(*) FROM (SELECT user_id, count(*) AS events FROM events_raw GROUP BY user_id) raw
                     FULL JOIN events_by_user USING (user_id) WHERE raw.events IS DISTINCT FROM events_by_user.events";
    assert_eq!(fresh.value::<i64>(differing).await, 0);
}

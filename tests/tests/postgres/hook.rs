//! An application can write in the transaction that stores events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::future::try_join_all;
use netagg_core::async_trait::async_trait;
use netagg_core::ports::EventStore;
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Batch, Error, Event, IdentifiedEvent};
use netagg_pg::{PgEventStore, StoreHook};
use sqlx::PgConnection;

use super::Fresh;

/// A hook that counts events by user, and fails if `fails` is set.
#[derive(Debug, Default)]
struct EventsByUser {
    fails: AtomicBool,
}

#[async_trait]
impl StoreHook for EventsByUser {
    async fn stored(&self, connection: &mut PgConnection, events: &[&Event]) -> Result<(), sqlx::Error> {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_counts_each_stored_event_once() {
    let fresh = Fresh::migrated().await;
    sqlx::query("CREATE TABLE events_by_user (user_id text PRIMARY KEY, events bigint NOT NULL)")
        .execute(&mut fresh.connection().await)
        .await
        .unwrap();
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

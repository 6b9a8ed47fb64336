//! The settings that all programs on a database agree on.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use netagg_core::async_trait::async_trait;
use netagg_core::ports::{AggregateStore, EventStore};
use netagg_core::{Error, Event, EventLimits, ProcessingMode};
use netagg_pg::{
    EventLimitsError, PgAggregateStore, PgCombinedStore, PgEventStore, Postgres, RebuildOptions, StoreHook,
};
use netagg_testkit::eventually;
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Fresh, PATIENCE, at, contributions, events};

#[tokio::test]
async fn the_first_program_records_the_event_limits_and_other_programs_must_have_the_same_limits() {
    let fresh = Fresh::migrated().await;
    let limits = EventLimits::default();
    assert_eq!(fresh.postgres.settings().event_limits(limits).await.unwrap(), limits);
    assert_eq!(fresh.postgres.settings().event_limits(limits).await.unwrap(), limits);

    let other = EventLimits { max_age: Duration::from_millis(1_500), ..limits };
    let error = fresh.postgres.settings().event_limits(other).await.unwrap_err();
    assert!(
        matches!(&error, EventLimitsError::Differ { recorded, configured } if *recorded == limits && *configured == other)
    );
    let message = error.to_string();
    for part in ["max_age 1825d", "1500ms", "max_future 1d"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_programs_start_together_one_program_records_its_limits() {
    let fresh = Fresh::migrated().await;
    let tasks = (1..=8).map(|days| {
        let settings = fresh.postgres.settings();
        let limits = EventLimits { max_age: Duration::from_secs(days * 86_400), ..EventLimits::default() };
        tokio::spawn(
            async move { (settings.event_limits(limits).await.is_ok(), settings.cursor_secret().await.is_ok()) },
        )
    });
    let results: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|(agreed, _)| *agreed).count(), 1);
    assert!(results.iter().all(|(_, secret)| *secret));
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM settings").await, 3);
    assert_eq!(
        fresh.value::<i32>("SELECT length(value) FROM settings WHERE name = 'cursor_secret'").await,
        64,
        "32 bytes in hexadecimal"
    );
}

#[tokio::test]
async fn services_with_old_limits_store_and_count_nothing_after_a_change() {
    let (before, after) =
        (EventLimits::default(), EventLimits { max_age: Duration::from_secs(86_400), ..EventLimits::default() });
    let batch = || [at(1, "2025-10-20T12:00:00Z"), at(2, "2025-10-20T13:00:00Z")];
    for mode in ProcessingMode::ALL {
        let fresh = Fresh::migrated().await;
        // Two processes: one process agrees on the limits before the change, and the other process after the change.
        let [old, new] = [(); 2].map(|()| Postgres::from_pool(fresh.postgres.pool().clone()));
        old.agree_on_mode(mode, &CancellationToken::new()).await.unwrap();
        old.settings().event_limits(before).await.unwrap();
        assert_eq!(write(&old, mode, [at(0, "2025-10-20T11:00:00Z")]).await.map_err(|error| error.to_string()), Ok(1));
        fresh.postgres.settings().set_event_limits(after).await.unwrap();

        let error = write(&old, mode, batch()).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && !error.is_retryable(), "{error:?}");
        for part in ["max_age 1d", "1825d"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 1);
        assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_identity").await, 1);
        // A rebuild validates no events, so it does not depend on the limits. In the combined mode, it has nothing to count.
        if mode == ProcessingMode::Separate {
            fresh.execute("TRUNCATE agg_day, agg_identity").await;
        }
        let options = RebuildOptions::new("2025-10-20".parse().unwrap(), "2025-10-20".parse().unwrap());
        old.rebuild().run(&options, &|_| {}, &CancellationToken::new()).await.unwrap();
        assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_identity").await, 1);

        let again = old.settings().event_limits(after).await;
        assert!(
            matches!(again, Err(EventLimitsError::Changed)),
            "a store of this handle still has the old limits: {again:?}"
        );
        new.settings().event_limits(after).await.unwrap();
        assert_eq!(write(&new, mode, batch()).await.map_err(|error| error.to_string()), Ok(2));
    }
}

/// Stores and counts events as the services of `mode` do. Each service must write, or each must fail with the same error.
async fn write<const N: usize>(postgres: &Postgres, mode: ProcessingMode, batch: [Event; N]) -> Result<u64, Error> {
    if mode == ProcessingMode::Combined {
        return Ok(PgCombinedStore::new(postgres.clone()).store(&events(batch)).await?.new);
    }
    let counted = PgAggregateStore::new(postgres.clone()).add(&contributions(batch.clone())).await;
    let stored = PgEventStore::new(postgres.clone()).store(&events(batch)).await;
    assert_eq!(counted.as_ref().map_err(ToString::to_string), stored.as_ref().map_err(ToString::to_string));
    Ok(stored?.new)
}

/// A hook that keeps the transaction of a batch open until the test ends it.
#[derive(Debug, Default)]
struct OpenTransaction {
    has_begun: Notify,
    end: Notify,
}

#[async_trait]
impl StoreHook for OpenTransaction {
    async fn stored(&self, _: &mut PgConnection, _: &[&Event]) -> Result<(), sqlx::Error> {
        self.has_begun.notify_one();
        self.end.notified().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_batches_in_flight_and_later_batches_fail() {
    let fresh = Fresh::migrated().await;
    let service = Postgres::from_pool(fresh.postgres.pool().clone());
    service.settings().event_limits(EventLimits::default()).await.unwrap();
    let open = Arc::new(OpenTransaction::default());
    let in_flight = PgEventStore::new(service.clone()).with_hook(open.clone());
    let in_flight = tokio::spawn(async move { in_flight.store(&events([at(1, "2025-10-20T12:00:00Z")])).await });
    timeout(PATIENCE, open.has_begun.notified()).await.unwrap();

    let settings = fresh.postgres.settings();
    let limits = EventLimits { max_age: Duration::from_secs(86_400), ..EventLimits::default() };
    let change = tokio::spawn(async move { settings.set_event_limits(limits).await });
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database \
                   WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted";
    let until_waiting = async |expected: i64| {
        eventually(PATIENCE, "transactions wait for the lock of writers", async || {
            let count = fresh.value::<i64>(waiting).await;
            if count == expected { Ok(()) } else { Err(format!("{count} of {expected}")) }
        })
        .await;
    };
    until_waiting(1).await;
    let later =
        tokio::spawn(async move { PgEventStore::new(service).store(&events([at(2, "2025-10-20T12:00:00Z")])).await });
    until_waiting(2).await;
    open.end.notify_one();
    assert_eq!(in_flight.await.unwrap().unwrap().new, 1);
    change.await.unwrap().unwrap();
    assert!(matches!(later.await.unwrap(), Err(Error::Unsupported { .. })));
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 1);
}

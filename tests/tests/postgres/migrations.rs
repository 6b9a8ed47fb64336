//! The schema can be created, reverted and created again. Without it, every call returns an error with the remedy.

use futures::future::join_all;
use netagg_core::ports::{AggregateStore, EventStore, TimelineFilter, TimelineQuery, TotalsQuery, TotalsReader};
use netagg_core::{Error, EventLimits, Granularity, Timestamp, UserId};
use netagg_pg::{EventLimitsError, PgAggregateStore, PgEventStore};

use super::{Fresh, at, connect, contributions, events};

async fn applied(fresh: &Fresh) -> Vec<bool> {
    let versions = fresh.postgres.migrations().status().await.unwrap();
    versions.iter().map(|version| version.applied_at.is_some()).collect()
}

/// The last version.
const LATEST: usize = 9;

/// For every version, whether it is applied if all versions up to `version` are applied.
fn up_to(version: usize) -> Vec<bool> {
    (1..=LATEST).map(|number| number <= version).collect()
}

/// All objects in the catalogue that the migrations create.
const OBJECTS: &str = "SELECT string_agg(name, ' ' ORDER BY name) FROM (
    SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'i', 'I')
    UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
    UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace) AS object (name)
    WHERE name NOT LIKE '_sqlx%'";

#[tokio::test]
async fn the_schema_goes_up_and_down_and_up_again() {
    let fresh = Fresh::empty().await;
    let migrations = fresh.postgres.migrations();
    assert_eq!(applied(&fresh).await, up_to(0));
    migrations.up().await.unwrap();
    assert_eq!(applied(&fresh).await, up_to(LATEST));
    fresh.postgres.check_schema().await.unwrap();
    let objects: String = fresh.value(OBJECTS).await;
    migrations.up().await.unwrap();

    PgEventStore::new(fresh.postgres.clone()).store(&events([at(1, "2025-10-20T00:00:00Z")])).await.unwrap();
    migrations.down_one().await.unwrap();
    assert_eq!(applied(&fresh).await, up_to(LATEST - 1));
    let error = fresh.postgres.check_schema().await.unwrap_err();
    assert!(
        error.to_string().contains("version 8 of 9") && error.to_string().contains("apply the migrations"),
        "{error}"
    );

    migrations.down_to(1).await.unwrap();
    assert_eq!(applied(&fresh).await, up_to(1));
    migrations.down_all().await.unwrap();
    assert_eq!(applied(&fresh).await, up_to(0));
    assert_eq!(fresh.value::<Option<String>>(OBJECTS).await, None);
    migrations.down_one().await.unwrap();

    migrations.up().await.unwrap();
    assert_eq!(fresh.value::<String>(OBJECTS).await, objects);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrators_take_turns() {
    let fresh = Fresh::empty().await;
    for round in 0..3 {
        let tasks = (0..5).map(|task| {
            let migrations = connect(fresh.database.url()).migrations();
            // In a round some migrators revert the schema while others apply it. The last migrator decides the result.
            tokio::spawn(async move {
                if round == 1 && task % 2 == 1 { migrations.down_all().await } else { migrations.up().await }
            })
        });
        for result in join_all(tasks).await {
            result.unwrap().unwrap();
        }
    }
    fresh.postgres.check_schema().await.unwrap();
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM _sqlx_migrations").await, LATEST as i64);
}

#[tokio::test]
async fn a_failed_migration_leaves_no_lock_behind() {
    let fresh = Fresh::empty().await;
    fresh.execute("CREATE TABLE agg_identity ()").await;
    for _ in 0..2 {
        fresh.postgres.migrations().up().await.unwrap_err();
    }
    assert_eq!(applied(&fresh).await, up_to(1));
    fresh.execute("DROP TABLE agg_identity").await;
    fresh.postgres.migrations().up().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_not_changed() {
    let fresh = Fresh::migrated().await;
    fresh
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (1000, 'from the future', true, '', 0)",
        )
        .await;
    for result in [fresh.postgres.check_schema().await, fresh.postgres.migrations().up().await] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NotSetUp { .. }) && error.to_string().contains("1000"), "{error}");
    }
}

#[tokio::test]
async fn without_a_schema_every_error_names_the_remedy() {
    let fresh = Fresh::empty().await;
    let (store, totals) = (PgEventStore::new(fresh.postgres.clone()), PgAggregateStore::new(fresh.postgres.clone()));
    let event = at(1, "2025-10-20T00:00:00Z");
    let filter = TimelineFilter {
        user_id: UserId::new("user-1").unwrap(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        event_type: None,
    };
    let totals_query =
        TotalsQuery { granularity: Granularity::Day, from: event.day(), to: event.day(), event_type: None };
    let limits = match fresh.postgres.settings().event_limits(EventLimits::default()).await {
        Err(EventLimitsError::Store(error)) => Err(error),
        other => panic!("{other:?}"),
    };
    let timeline =
        store.timeline(&TimelineQuery { filter: filter.clone(), after: None, limit: 1, max_bytes: u64::MAX }).await;
    for error in [
        fresh.postgres.check_schema().await,
        store.store(&events([event.clone()])).await.map(drop),
        totals.add(&contributions([event])).await.map(drop),
        timeline.map(drop),
        store.count(&filter).await.map(drop),
        totals.totals(&totals_query).await.map(drop),
        fresh.postgres.settings().cursor_secret().await.map(drop),
        limits,
    ]
    .map(Result::unwrap_err)
    {
        assert!(matches!(error, Error::NotSetUp { .. }) && error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("apply the migrations"), "{error}");
    }
    fresh.postgres.ping().await.unwrap();
}

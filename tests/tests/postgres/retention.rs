//! Retention drops months while both services write.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use netagg_core::ports::{AggregateStore, EventStore};
use netagg_core::usage::{DetailRequest, UsageConfig, UsageService};
use netagg_core::{Error, EventLimits, Month, Timestamp};
use netagg_pg::{DropError, PgAggregateStore, PgEventStore};
use netagg_testkit::eventually;

use super::{Fresh, at, connect, contributions, events};

const PATIENCE: Duration = Duration::from_secs(60);

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    "2025-10-20T12:00:00Z".parse().unwrap()
}

/// Limits with which months before August 2025 can be dropped.
fn limits() -> EventLimits {
    EventLimits { max_age: Duration::from_secs(60 * 86_400), ..EventLimits::default() }
}

const IDENTITIES: &str = "SELECT (SELECT count(*) FROM event_identity) + (SELECT count(*) FROM agg_identity)";
const PARTITIONS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events_raw'::regclass";

/// Stores and counts an event in each month from May to August 2025.
async fn four_months(fresh: &Fresh) {
    let all = || (5..9).map(|month| at(month, &format!("2025-0{month}-15T00:00:00Z")));
    PgEventStore::new(fresh.postgres.clone()).store(&events(all())).await.unwrap();
    PgAggregateStore::new(fresh.postgres.clone()).add(&contributions(all())).await.unwrap();
}

#[tokio::test]
async fn months_are_dropped_with_their_identities_and_their_totals_stay() {
    let fresh = Fresh::migrated().await;
    four_months(&fresh).await;
    let retention = fresh.postgres.retention();
    assert_eq!(retention.dropped_through().await.unwrap(), None);
    let dropped = retention.drop_before(month("2025-07"), limits(), now()).await.unwrap();
    assert_eq!(dropped.months, [month("2025-05"), month("2025-06")]);
    assert_eq!(dropped.identities, 4);
    assert_eq!(retention.dropped_through().await.unwrap(), Some(month("2025-06")));
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 2);
    assert_eq!(fresh.value::<i64>(IDENTITIES).await, 4);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_day").await, 4);
    // A second call has nothing to do.
    let again = retention.drop_before(month("2025-07"), limits(), now()).await.unwrap();
    assert_eq!((again.months, again.identities), (vec![], 0));
}

#[tokio::test]
async fn a_month_that_may_still_get_valid_events_is_not_dropped() {
    let fresh = Fresh::migrated().await;
    four_months(&fresh).await;
    let error = fresh.postgres.retention().drop_before(month("2025-09"), limits(), now()).await.unwrap_err();
    assert!(matches!(error, DropError::StillTaken { earliest, .. } if earliest == month("2025-08")), "{error}");
    assert!(error.to_string().contains("2025-08"), "{error}");
    assert_eq!(fresh.value::<i64>(PARTITIONS).await, 4);
}

#[tokio::test]
async fn a_month_that_only_the_recorded_limits_accept_is_not_dropped() {
    let fresh = Fresh::migrated().await;
    four_months(&fresh).await;
    // Since a service agreed on its limits, older events have become valid.
    let recorded = EventLimits { max_age: Duration::from_secs(120 * 86_400), ..limits() };
    fresh.postgres.settings().set_event_limits(recorded).await.unwrap();
    let error = fresh.postgres.retention().drop_before(month("2025-08"), limits(), now()).await.unwrap_err();
    assert!(matches!(error, DropError::StillTaken { earliest, .. } if earliest == month("2025-06")), "{error}");
    assert_eq!(fresh.value::<i64>(PARTITIONS).await, 4);
}

/// A listing continues with the remaining events, also if the last event of its last page was dropped.
#[tokio::test]
async fn a_listing_continues_while_old_months_are_dropped() {
    let fresh = Fresh::migrated().await;
    let (store, retention) = (PgEventStore::new(fresh.postgres.clone()), fresh.postgres.retention());
    // Each month has three events, newest first.
    let started_at = |id: u128| format!("2025-{:02}-{:02}T00:00:00Z", 8 - id / 3, 20 - id % 3);
    store.store(&events((0..12).map(|id| at(id, &started_at(id))))).await.unwrap();
    let totals = PgAggregateStore::new(fresh.postgres.clone());
    let usage = UsageService::new(Arc::new(store), Arc::new(totals), UsageConfig::default());
    let user_id = at(0, &started_at(0)).fields().user_id.clone();
    let request = DetailRequest {
        from: Some("2025-01-01T00:00:00Z".parse().unwrap()),
        to: Some(now()),
        limit: Some(4),
        ..DetailRequest::of(user_id)
    };
    let page = async |cursor: &Option<String>| {
        let page = usage.user_detail(DetailRequest { cursor: cursor.clone(), ..request.clone() }).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|event| event.fields().event_id.as_u128()).collect();
        (ids, page.total_count, page.next_cursor)
    };
    let (ids, count, first) = page(&None).await;
    assert_eq!((ids, count, first.is_some()), (vec![0, 1, 2, 3], 12, true));

    retention.drop_before(month("2025-06"), limits(), now()).await.unwrap();
    let (ids, count, second) = page(&first).await;
    assert_eq!((ids, count, second.is_some()), (vec![4, 5, 6, 7], 9, true));

    retention.drop_before(month("2025-07"), limits(), now()).await.unwrap();
    assert_eq!(page(&second).await, (vec![], 6, None), "the cursor points to a dropped event of June");
    assert_eq!(page(&first).await, (vec![4, 5], 6, None));
}

#[tokio::test]
async fn both_services_reject_events_of_dropped_months_and_do_not_create_the_month_again() {
    let fresh = Fresh::migrated().await;
    // This store already knew the partitions before the drop.
    let (store, totals) = (PgEventStore::new(fresh.postgres.clone()), PgAggregateStore::new(fresh.postgres.clone()));
    let all = || (5..9).map(|month| at(month, &format!("2025-0{month}-15T00:00:00Z")));
    store.store(&events(all())).await.unwrap();
    totals.add(&contributions(all())).await.unwrap();
    fresh.postgres.retention().drop_before(month("2025-07"), limits(), now()).await.unwrap();
    let through = month("2025-06");
    // The batches have a known and a new event of dropped months, and an event of an earlier month that never had a partition.
    // Nothing of such a batch is stored or counted.
    for (id, old) in [(5, "2025-05-15T00:00:00Z"), (50, "2025-06-01T00:00:00Z"), (51, "2024-01-01T00:00:00Z")] {
        for store in [&store, &PgEventStore::new(fresh.postgres.clone())] {
            let error = store.store(&events([at(60, "2025-08-01T00:00:00Z"), at(id, old)])).await.unwrap_err();
            assert!(matches!(error, Error::MonthsDropped { through: found } if found == through), "{error}");
        }
        let batch = contributions([at(60, "2025-08-01T00:00:00Z"), at(id, old)]);
        let error = totals.add(&batch).await.unwrap_err();
        assert!(matches!(error, Error::MonthsDropped { through: found } if found == through), "{error}");
    }
    assert_eq!(fresh.value::<i64>(PARTITIONS).await, 2);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 2);
    assert_eq!(fresh.value::<i64>("SELECT sum(count_events)::bigint FROM agg_day").await, 4);
    // The connection still works.
    assert_eq!(store.store(&events([at(60, "2025-08-01T00:00:00Z")])).await.unwrap().new, 1);
}

#[tokio::test]
async fn events_that_only_one_service_has_processed_are_settled_before_the_drop() {
    let fresh = Fresh::migrated().await;
    four_months(&fresh).await;
    let (store, totals) = (PgEventStore::new(fresh.postgres.clone()), PgAggregateStore::new(fresh.postgres.clone()));
    store.store(&events([at(100, "2025-05-20T00:00:00Z"), at(101, "2025-06-20T00:00:00Z")])).await.unwrap();
    totals.add(&contributions([at(102, "2025-05-20T00:00:00Z"), at(103, "2025-05-21T00:00:00Z")])).await.unwrap();
    fresh.postgres.retention().drop_before(month("2025-07"), limits(), now()).await.unwrap();
    // Stored events are counted. Counted events that can never be stored are removed from the totals.
    let counted =
        "SELECT string_agg(day || ' ' || count_events, ', ' ORDER BY day) FROM agg_day WHERE day < '2025-07-01'";
    assert_eq!(fresh.value::<String>(counted).await, "2025-05-15 1, 2025-05-20 1, 2025-06-15 1, 2025-06-20 1");
    assert_eq!(fresh.value::<i64>(IDENTITIES).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_drops_are_safe_and_writers_continue() {
    let fresh = Fresh::migrated().await;
    four_months(&fresh).await;
    let store = Arc::new(PgEventStore::new(fresh.postgres.clone()));
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for id in 1_000..1_200 {
                store.store(&events([at(id, "2025-08-20T00:00:00Z")])).await.unwrap();
            }
        }
    });
    let drops = (0..4).map(async |_| {
        let retention = connect(fresh.database.url()).retention();
        eventually(PATIENCE, "no other drop is running", async || {
            match retention.drop_before(month("2025-08"), limits(), now()).await {
                Ok(dropped) => Ok(dropped.months.len()),
                Err(DropError::Busy) => Err("busy".to_owned()),
                Err(error) => panic!("{error}"),
            }
        })
        .await
    });
    let dropped: usize = join_all(drops).await.into_iter().sum();
    assert_eq!(dropped, 3, "each month is dropped once");
    writer.await.unwrap();
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 201);
}

#[tokio::test]
async fn an_interrupted_detach_is_finished_and_a_table_that_an_operator_detached_is_kept() {
    let fresh = Fresh::migrated().await;
    four_months(&fresh).await;
    // An operator has detached May, to keep it.
    fresh.execute("ALTER TABLE events_raw DETACH PARTITION events_raw_2025_05").await;
    // The detach of June was interrupted.
    let mut reader = fresh.connection().await;
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM events_raw").execute(&mut reader).await.unwrap();
    let mut detacher = fresh.connection().await;
    let cut_off = sqlx::raw_sql("SET lock_timeout = '100ms'; SET statement_timeout = '500ms'");
    cut_off.execute(&mut detacher).await.unwrap();
    sqlx::raw_sql("ALTER TABLE events_raw DETACH PARTITION events_raw_2025_06 CONCURRENTLY")
        .execute(&mut detacher)
        .await
        .unwrap_err();
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    assert_eq!(fresh.value::<i64>(pending).await, 1);
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();

    let dropped = fresh.postgres.retention().drop_before(month("2025-08"), limits(), now()).await.unwrap();
    assert_eq!(dropped.months, [month("2025-06"), month("2025-07")]);
    assert_eq!(fresh.value::<i64>(pending).await, 0);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw_2025_05").await, 1);
    assert!(fresh.value::<bool>("SELECT to_regclass('events_raw_2025_06') IS NULL").await);
}

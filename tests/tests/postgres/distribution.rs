//! Databases with tables that are distributed over several servers are rejected. An extension without such tables is accepted.

use std::time::Duration;

use netagg_core::ports::{AggregateStore, EventStore, TotalsRepair};
use netagg_core::{Error, EventLimits};
use netagg_pg::{AuditOptions, DropError, PgAggregateStore, PgEventStore, PgTotalsRepair, Postgres};

use super::{Fresh, at, connect, contributions, events};

/// The table of the extension's catalogue that netagg reads.
pub(super) const CATALOGUE: &str = "CREATE TABLE pg_dist_partition (logicalrelid regclass)";

async fn write(postgres: &Postgres, id: u128) -> Vec<Result<(), Error>> {
    let event = at(id, "2025-10-20T00:00:00Z");
    let (now, day) = ("2025-10-20T00:00:00Z".parse().unwrap(), "2025-10-20".parse().unwrap());
    let retention = postgres.retention().drop_before("2020-01".parse().unwrap(), EventLimits::default(), now).await;
    vec![
        PgEventStore::new(postgres.clone()).store(&events([event.clone()])).await.map(drop),
        PgAggregateStore::new(postgres.clone()).add(&contributions([event])).await.map(drop),
        postgres.partitions().ensure_ahead(now, 1).await.map(drop),
        postgres.partitions().store_set_aside().await.map(drop),
        postgres.audit().run(&AuditOptions::default(), &|_| {}).await.map(drop),
        postgres.repairs().mark(&[day]).await,
        postgres.repairs().begin(&[day], Duration::from_secs(1)).await.map(drop),
        PgTotalsRepair::new(postgres.clone()).repair().await.map(drop),
        match retention {
            Err(DropError::Store(error)) => Err(error),
            other => other.map(drop).map_err(|error| Error::internal("retention", error)),
        },
        postgres.migrations().up().await,
        postgres.check_distribution().await,
    ]
}

#[tokio::test]
async fn nothing_is_written_audited_or_dropped_where_tables_are_distributed() {
    let fresh = Fresh::migrated().await;
    // A table of another program may have the same name as the table of the extension.
    fresh.execute("CREATE TABLE pg_dist_partition (id int)").await;
    for (at, result) in write(&connect(fresh.database.url()), 0).await.into_iter().enumerate() {
        result.unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    fresh.execute("DROP TABLE pg_dist_partition").await;
    fresh.execute(CATALOGUE).await;
    fresh.execute("CREATE TABLE of_others (id int); INSERT INTO pg_dist_partition VALUES ('of_others')").await;
    for (at, result) in write(&fresh.postgres, 1).await.into_iter().enumerate() {
        result.unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    for (id, table) in (2..).zip(["events_raw", "event_identity", "agg_identity"]) {
        let statement =
            format!("DELETE FROM pg_dist_partition; INSERT INTO pg_dist_partition VALUES ('{table}'), ('of_others')");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut fresh.connection().await).await.unwrap();
        // A new handle, like the handle of another program.
        for (at, result) in write(&connect(fresh.database.url()), id).await.into_iter().enumerate() {
            let error = result.expect_err("the call is rejected");
            let is_named = error.to_string().contains(table) && error.to_string().contains("undistribute_table");
            assert!(matches!(error, Error::Unsupported { .. }) && !error.is_retryable() && is_named, "{at}: {error}");
        }
    }
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM events_raw").await, 2);
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_identity").await, 2);
}

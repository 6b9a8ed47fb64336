//! The SQL statements: their validity and their query plans.

use std::path::Path;

use sqlx::{AssertSqlSafe, Executor, Row, SqlSafeStr};

use super::{Fresh, at, events};
use netagg_core::ports::EventStore;
use netagg_pg::PgEventStore;

#[tokio::test]
async fn every_query_file_is_valid() {
    let fresh = Fresh::migrated().await;
    // A query reads the catalogue of an extension that may not be installed.
    fresh.execute(super::distribution::CATALOGUE).await;
    let mut connection = fresh.connection().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../netagg-pg/queries");
    let mut prepared = 0;
    let topics = std::fs::read_dir(folder).unwrap().map(|topic| topic.unwrap().path());
    // The files of a mode switch contain several statements. The tests of the switch run them.
    let topics = topics.filter(|topic| !topic.ends_with("mode"));
    for path in topics.flat_map(|topic| std::fs::read_dir(topic).unwrap()).map(|file| file.unwrap().path()) {
        let query = std::fs::read_to_string(&path).unwrap();
        let statement = connection.prepare(AssertSqlSafe(query).into_sql_str()).await;
        statement.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        prepared += 1;
    }
    assert!(prepared >= 8, "only {prepared} query files");
}

/// A page reads only the index of the requested months, newest first, and stops when the page is full.
#[tokio::test]
async fn a_page_of_a_timeline_is_read_from_the_index_in_order() {
    let fresh = Fresh::migrated().await;
    let store = PgEventStore::new(fresh.postgres.clone());
    let stored = (0..3_000).map(|id| at(id, &format!("2025-{:02}-10T00:00:{:02}Z", 1 + id % 12, id % 60)));
    store.store(&events(stored)).await.unwrap();
    fresh.execute("ANALYZE").await;
    let mut connection = fresh.connection().await;
    let query = format!(
        "PREPARE page AS {}; SET plan_cache_mode = force_custom_plan",
        include_str!("../../../netagg-pg/queries/events/timeline.sql")
    );
    sqlx::raw_sql(AssertSqlSafe(query)).execute(&mut connection).await.unwrap();
    let explain = "EXPLAIN (COSTS OFF) EXECUTE page('user-1', '2025-03-01Z', '2025-07-01Z', NULL, \
                   '2025-06-10Z', 'provider-1', '550e8400-e29b-41d4-a716-446655440000', 10)";
    let plan: Vec<String> =
        sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    for part in ["Incremental Sort", "Presorted Key: events_raw.started_at", "Index Scan", "events_raw_2025_06"] {
        assert!(plan.contains(part), "no {part} in:\n{plan}");
    }
    for part in ["events_raw_2025_02", "events_raw_2025_07", "Seq Scan"] {
        assert!(!plan.contains(part), "{part} in:\n{plan}");
    }
}

/// Otherwise a function call for each event would slow down audits and repairs.
#[tokio::test]
async fn the_function_of_the_key_is_inlined() {
    let fresh = Fresh::migrated().await;
    fresh.postgres.partitions().ensure_ahead("2025-10-01T00:00:00Z".parse().unwrap(), 0).await.unwrap();
    let explain = "EXPLAIN (VERBOSE, COSTS OFF) SELECT event_key(source_id, event_id) FROM events_raw";
    let plan = sqlx::raw_sql(explain).fetch_all(&mut fresh.connection().await).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("sha256(") && !plan.contains("event_key("), "{plan}");
}

//! The connection that reads whole tables, and its snapshots.

use sqlx::PgConnection;

use crate::client::{PgError, Postgres};

/// More parallel workers and memory than a session gets by default, and no JIT compilation, because the statements read few
/// columns.
const SESSION: &str = "SET max_parallel_workers_per_gather = 4; SET work_mem = '32MB'; SET jit = off";

/// A connection outside of the pool, without time limits.
pub(super) async fn connect(postgres: &Postgres) -> Result<PgConnection, PgError> {
    let mut connection = postgres.unlimited_connection().await?;
    postgres.refuse_distribution(&mut connection).await?;
    sqlx::raw_sql(SESSION).execute(&mut connection).await?;
    Ok(connection)
}

/// Begins a read-only transaction that sees one state of the database.
pub(super) async fn begin_snapshot(connection: &mut PgConnection) -> Result<(), PgError> {
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(connection).await?;
    Ok(())
}

/// Ends the transaction of [`begin_snapshot`].
pub(super) async fn end_snapshot(connection: &mut PgConnection) -> Result<(), PgError> {
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}

//! Which offsets each service has durably processed, and the end of its transactions.

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Span, Tally};
use sqlx::PgConnection;

use crate::client::PgError;

/// The ingestor's name in `consumer_progress` and `completeness`.
pub(crate) const INGESTOR: &str = "ingestor";

/// The aggregator's name there.
pub(crate) const AGGREGATOR: &str = "aggregator";

/// Records `spans` as processed by `service`, with the tally of each. Every batch of the service updates the same rows, so
/// they are locked late, for the shortest time.
pub(crate) async fn note(
    connection: &mut PgConnection,
    service: &str,
    spans: &[Span],
    tallies: &[Tally],
) -> Result<(), PgError> {
    let done: Vec<(&Span, &Tally)> = spans.iter().zip(tallies).filter(|(span, _)| span.from < span.to).collect();
    if !done.is_empty() {
        let topics: Vec<&str> = done.iter().map(|(span, _)| &*span.partition.topic).collect();
        let timestamps: Vec<_> = done.iter().map(|(span, _)| span.last_timestamp.map(|at| at.to_datetime())).collect();
        // Counts of records in memory fit.
        let count = |count: fn(&Tally) -> u64| done.iter().map(|(_, tally)| count(tally) as i64).collect::<Vec<_>>();
        sqlx::query(include_str!("../../queries/progress/add.sql"))
            .bind(service)
            .bind(topics)
            .bind(done.iter().map(|(span, _)| span.partition.number).collect::<Vec<_>>())
            .bind(done.iter().map(|(span, _)| span.from).collect::<Vec<_>>())
            .bind(done.iter().map(|(span, _)| span.to).collect::<Vec<_>>())
            .bind(timestamps)
            .bind(done.iter().map(|(span, _)| span.records as i64).collect::<Vec<_>>())
            .bind(count(|tally| tally.accepted))
            .bind(count(|tally| tally.duplicates))
            .bind(count(|tally| tally.conflicts))
            .bind(count(|tally| tally.invalid))
            .execute(&mut *connection)
            .await?;
    }
    crash::pass(CrashPoint::ProgressNoted);
    Ok(())
}

/// Ends the transaction of a batch.
pub(crate) async fn commit(connection: &mut PgConnection) -> Result<(), PgError> {
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    crash::pass(CrashPoint::Committed);
    Ok(())
}

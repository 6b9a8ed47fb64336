//! Which offsets each service has durably processed, and the end of its transactions.

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Span, SpanCounts};
use sqlx::PgConnection;

use crate::client::{PgError, Traced};

/// The ingestor's name in `consumer_progress` and `completeness`.
pub(crate) const INGESTOR: &str = "ingestor";

/// The aggregator's name in these tables.
pub(crate) const AGGREGATOR: &str = "aggregator";

/// Records `spans` as processed by `service`, with the counts of each. Every batch of the service updates the same rows, so
/// they are locked late, for the shortest time.
pub(crate) async fn note(
    connection: &mut PgConnection,
    service: &str,
    spans: &[Span],
    span_counts: &[SpanCounts],
) -> Result<(), PgError> {
    let done: Vec<(&Span, &SpanCounts)> =
        spans.iter().zip(span_counts).filter(|(span, _)| span.from < span.to).collect();
    if !done.is_empty() {
        let topics: Vec<&str> = done.iter().map(|(span, _)| &*span.partition.topic).collect();
        let timestamps: Vec<_> = done.iter().map(|(span, _)| span.last_timestamp.map(|at| at.to_datetime())).collect();
        // The counts of records in memory fit in `i64`.
        let count =
            |count: fn(&SpanCounts) -> u64| done.iter().map(|(_, counts)| count(counts) as i64).collect::<Vec<_>>();
        sqlx::query(include_str!("../../queries/progress/add.sql"))
            .bind(service)
            .bind(topics)
            .bind(done.iter().map(|(span, _)| span.partition.number).collect::<Vec<_>>())
            .bind(done.iter().map(|(span, _)| span.from).collect::<Vec<_>>())
            .bind(done.iter().map(|(span, _)| span.to).collect::<Vec<_>>())
            .bind(timestamps)
            .bind(done.iter().map(|(span, _)| span.records as i64).collect::<Vec<_>>())
            .bind(count(|counts| counts.accepted))
            .bind(count(|counts| counts.duplicates))
            .bind(count(|counts| counts.conflicts))
            .bind(count(|counts| counts.invalid))
            .execute(&mut *connection)
            .traced("INSERT consumer_progress")
            .await?;
    }
    crash::pass(CrashPoint::ProgressNoted);
    Ok(())
}

/// Ends the transaction of a batch.
pub(crate) async fn commit(connection: &mut PgConnection) -> Result<(), PgError> {
    sqlx::raw_sql("COMMIT").execute(connection).traced("COMMIT").await?;
    crash::pass(CrashPoint::Committed);
    Ok(())
}

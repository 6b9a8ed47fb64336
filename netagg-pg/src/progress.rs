//! How far each service has durably got, and the end of its transactions.

use netagg_core::Span;
use sqlx::PgConnection;

use crate::error::PgError;

/// Notes `spans` as done with by `service` and commits, in this order: the rows are those every batch of the service
/// wants, so they are locked for the shortest time.
pub(crate) async fn commit(connection: &mut PgConnection, service: &str, spans: &[Span]) -> Result<(), PgError> {
    let spans: Vec<&Span> = spans.iter().filter(|span| span.from < span.to).collect();
    if !spans.is_empty() {
        let topics: Vec<&str> = spans.iter().map(|span| &*span.partition.topic).collect();
        let timestamps: Vec<_> = spans.iter().map(|span| span.last_timestamp.map(|at| at.to_datetime())).collect();
        sqlx::query(include_str!("../queries/consumer_progress_add.sql"))
            .bind(service)
            .bind(topics)
            .bind(spans.iter().map(|span| span.partition.number).collect::<Vec<_>>())
            .bind(spans.iter().map(|span| span.from).collect::<Vec<_>>())
            .bind(spans.iter().map(|span| span.to).collect::<Vec<_>>())
            .bind(timestamps)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}

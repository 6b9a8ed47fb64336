//! Spans of SQL statements, with the attributes that OpenTelemetry defines for databases.

use tracing::{Instrument, Span, field};

/// Runs a statement in a span.
pub(crate) trait Traced<T, E>: Future<Output = Result<T, E>> + Send + Sized {
    /// Runs the statement in a span. `summary` is its operation and its main table, such as `SELECT agg_day`.
    ///
    /// A statement outside of a request and a batch gets no span. Checks run every second, and would fill the trace store.
    ///
    /// A statement that fails marks its span as an error. The text of the error may hold data of users, and stays out of the
    /// span.
    fn traced(self, summary: &'static str) -> impl Future<Output = Result<T, E>> + Send {
        let span = if Span::current().is_none() {
            Span::none()
        } else {
            tracing::info_span!(
                "sql",
                otel.name = summary,
                otel.kind = "client",
                otel.status_code = field::Empty,
                db.system.name = "postgresql",
                db.query.summary = summary,
            )
        };
        async move {
            let result = self.instrument(span.clone()).await;
            if result.is_err() {
                span.record("otel.status_code", "ERROR");
            }
            result
        }
    }
}

impl<T, E, F: Future<Output = Result<T, E>> + Send> Traced<T, E> for F {}

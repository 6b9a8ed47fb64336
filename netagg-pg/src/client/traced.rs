//! Spans of SQL statements, with the attributes that OpenTelemetry defines for databases.

use tracing::{Instrument, Span, field};

use super::error::PgError;

/// Runs a statement in a span.
pub(crate) trait Traced<T, E: HasDriverError>: Future<Output = Result<T, E>> + Send + Sized {
    /// Runs the statement in a span. `summary` is its operation and its main table, such as `SELECT agg_day`.
    ///
    /// A statement outside of a request and a batch gets no span. Checks run every second, and would fill the trace store.
    ///
    /// A statement that fails marks its span as an error, with the code of PostgreSQL. The text of the error may hold data of
    /// users, and stays out of the span.
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
                db.response.status_code = field::Empty,
                error.r#type = field::Empty,
            )
        };
        async move {
            let result = self.instrument(span.clone()).await;
            if let Err(error) = &result {
                record(&span, error);
            }
            result
        }
    }
}

impl<T, E: HasDriverError, F: Future<Output = Result<T, E>> + Send> Traced<T, E> for F {}

/// An error that may come from the driver.
pub(crate) trait HasDriverError {
    fn driver_error(&self) -> Option<&sqlx::Error>;
}

impl HasDriverError for sqlx::Error {
    fn driver_error(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

impl HasDriverError for PgError {
    fn driver_error(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Sqlx(error) => Some(error),
            _ => None,
        }
    }
}

fn record(span: &Span, error: &impl HasDriverError) {
    span.record("otel.status_code", "ERROR");
    let error = error.driver_error();
    let code = error.and_then(sqlx::Error::as_database_error).and_then(|error| error.code());
    if let Some(code) = &code {
        span.record("db.response.status_code", &**code);
    }
    let other = if matches!(error, Some(sqlx::Error::Io(_))) { "io" } else { "_OTHER" };
    span.record("error.type", code.as_deref().unwrap_or(other));
}

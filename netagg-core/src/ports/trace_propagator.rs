use std::fmt::Debug;

use tracing::Span;

use crate::TraceContext;

/// Connects the spans of this process with the spans of other processes.
///
/// The crates of netagg make spans with `tracing`, and they depend on no tracing system. An application that sends its spans
/// to a tracing system implements this port, so that traces continue over requests and records. `OtelPropagator` (feature
/// `opentelemetry`) implements it for OpenTelemetry, and `examples/tracing.rs` shows it.
///
/// Calls must be cheap and must not block: they run for each request and each batch.
pub trait TracePropagator: Debug + Send + Sync {
    /// Makes the span of another process the parent of `span`. It is called before `span` is entered and before
    /// [`context`](Self::context).
    fn set_parent(&self, span: &Span, parent: &TraceContext);

    /// Links `span` to a span of another process that caused a part of its work.
    fn add_link(&self, span: &Span, link: &TraceContext);

    /// The context of `span`. Returns `None` if no tracing system sees the span.
    fn context(&self, span: &Span) -> Option<TraceContext>;
}

//! Connects the spans of `tracing` with OpenTelemetry's trace contexts.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::TraceContext;
use crate::ports::TracePropagator;

/// Connects spans over OpenTelemetry. The application installs the layer of `tracing-opentelemetry`, with its own tracer and
/// exporter. Without this layer, the propagator has no effect.
///
/// The layer must be of the same version of `tracing-opentelemetry`. The modules [`tracing_opentelemetry`](crate::tracing_opentelemetry)
/// and [`opentelemetry`](crate::opentelemetry) of this crate are this version.
///
/// ```
/// use std::sync::Arc;
///
/// use netagg_core::memory::{MemoryDeadLetters, MemoryEventStore};
/// use netagg_core::{Ingestor, OtelPropagator};
///
/// let ingestor = Ingestor::new(Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()))
///     .with_trace_propagator(Arc::new(OtelPropagator));
/// # drop(ingestor);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs)]
pub struct OtelPropagator;

impl TracePropagator for OtelPropagator {
    fn set_parent(&self, span: &Span, parent: &TraceContext) {
        // Fails only if the span has started or is not seen by a tracing system. Then its trace begins here.
        let _ = span.set_parent(Context::new().with_remote_span_context(span_context(parent)));
    }

    fn add_link(&self, span: &Span, link: &TraceContext) {
        span.add_link(span_context(link));
    }

    fn context(&self, span: &Span) -> Option<TraceContext> {
        if span.is_disabled() {
            return None;
        }
        let context = span.context();
        let context = context.span().span_context().clone();
        let ids = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        let found = TraceContext::new(u128::from_be_bytes(ids.0), u64::from_be_bytes(ids.1), context.is_sampled())?;
        Some(found.with_state(&context.trace_state().header()))
    }
}

fn span_context(context: &TraceContext) -> SpanContext {
    let (trace_id, span_id) = context.ids();
    let flags = TraceFlags::default().with_sampled(context.is_sampled());
    let state = context.state().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    SpanContext::new(trace_id.into(), span_id.into(), flags, true, state)
}

//! Distributed tracing: the spans of a program go to an OpenTelemetry receiver. It is off until `OTEL_*` variables turn it on.
//!
//! An exporter that is slow, absent or refusing costs only spans. The queue is bounded, drops are counted, and the stop of the
//! program waits a bounded time for the last export.

mod bounded_processor;
mod config;
mod exporter;
mod metrics;
mod propagator;

use std::time::Duration;

use opentelemetry::trace::{TraceContextExt, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, filter_fn};

use self::bounded_processor::BoundedProcessor;
pub use self::config::TracesConfig;
use self::exporter::CountingExporter;
pub(crate) use self::metrics::{describe_metrics, register_metrics};
pub use self::propagator::OtelPropagator;
use crate::Failure;
use crate::process::TraceLayer;

/// How long the stop of a program waits for the export of the last spans.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The spans of a program on their way to the receiver. [`stop`](Self::stop) exports the last spans.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Prepares tracing. It connects at the first export.
    ///
    /// # Errors
    /// If a value of `config` cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(config: TracesConfig) -> Result<Self, Failure> {
        let processor = BoundedProcessor::new(CountingExporter::new(&config)?, &config);
        let attributes = config.resource.into_iter().map(|(name, value)| KeyValue::new(name, value));
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(attributes)
            .with_service_name(config.service_name)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(config.sampler)
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// The layer that turns the spans of netagg's crates into OpenTelemetry's spans. Log lines of a span become its events.
    pub(crate) fn layer(&self) -> TraceLayer {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("netagg"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false);
        let is_own: fn(&Metadata<'_>) -> bool = |metadata| metadata.target().starts_with("netagg");
        let filter = LevelFilter::INFO.and(filter_fn(is_own).with_max_level_hint(LevelFilter::TRACE));
        TraceLayer { layer: layer.with_filter(filter).boxed(), trace_id: current_trace_id }
    }

    /// Exports the last spans, within a bounded time. Call it outside of asynchronous code.
    pub(crate) fn stop(self) {
        // A failed export is counted and logged where it happens.
        let _ = self.0.shutdown_with_timeout(STOP_TIMEOUT);
    }
}

/// The id of the trace of the span that this thread is in.
fn current_trace_id() -> Option<String> {
    Context::map_current(|context| {
        let trace_id = context.span().span_context().trace_id();
        (trace_id != TraceId::INVALID).then(|| trace_id.to_string())
    })
}

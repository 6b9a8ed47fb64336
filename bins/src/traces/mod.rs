//! Distributed tracing: the spans of a program go to an OpenTelemetry receiver. It is off until `OTEL_*` variables turn it on.
//!
//! An exporter that is slow, absent or refusing costs only spans. The queue is bounded, drops are counted, and the stop of the
//! program waits a bounded time for the last export.

mod bounded_processor;
mod config;
mod exporter;
mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use netagg_core::uuid::Uuid;
use opentelemetry::trace::{TraceContextExt, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, filter_fn};

use self::bounded_processor::BoundedProcessor;
pub use self::config::TracesConfig;
use self::exporter::CountingExporter;
pub(crate) use self::metrics::{describe_metrics, register_metrics};
use crate::Failure;
use crate::process::TraceLayer;

/// How long the stop of a program waits for the export of the last spans.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The spans of a program on their way to the receiver. [`stop`](Self::stop) exports the last spans.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    /// The number of spans that wait for their export.
    queued: Arc<AtomicUsize>,
}

impl Traces {
    /// Prepares tracing. It connects at the first export.
    ///
    /// # Errors
    /// If a value of `config` cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(config: TracesConfig) -> Result<Self, Failure> {
        let exporter = CountingExporter::new(&config)?;
        let queued = exporter.queued.clone();
        let processor = BoundedProcessor::new(exporter, &config);
        let attributes = config.resource.into_iter().map(|(name, value)| KeyValue::new(name, value));
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", Uuid::new_v4().to_string()))
            .with_attributes(attributes)
            .with_service_name(config.service_name)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(config.sampler)
            .with_resource(resource)
            .build();
        Ok(Self { provider, queued })
    }

    /// The layer that turns the spans of netagg's crates into OpenTelemetry's spans. Log lines of a span become its events.
    pub(crate) fn layer(&self) -> TraceLayer {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("netagg"))
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
        let _ = self.provider.shutdown_with_timeout(STOP_TIMEOUT);
        let spans = self.queued.load(Relaxed);
        if spans > 0 {
            tracing::warn!(spans, "stopping without the export of the last spans");
        }
    }
}

/// The id of the trace of the span that this thread is in.
fn current_trace_id() -> Option<String> {
    Context::map_current(|context| {
        let trace_id = context.span().span_context().trace_id();
        (trace_id != TraceId::INVALID).then(|| trace_id.to_string())
    })
}

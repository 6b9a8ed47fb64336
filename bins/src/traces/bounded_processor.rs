//! The queue of spans, which is bounded and counts the spans that it drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanProcessor};

use super::config::TracesConfig;
use super::exporter::CountingExporter;
use super::metrics::dropped;

/// Passes spans to the thread that exports them. A span is dropped if too many spans wait: the queue of the SDK is bounded,
/// too, but it does not report the spans that it drops.
#[derive(Debug)]
pub(super) struct BoundedProcessor {
    inner: BatchSpanProcessor,
    queued: Arc<AtomicUsize>,
    max_queue_size: usize,
}

impl BoundedProcessor {
    pub(super) fn new(exporter: CountingExporter, config: &TracesConfig) -> Self {
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(config.max_queue_size)
            .with_max_export_batch_size(config.max_batch_size)
            .with_scheduled_delay(config.delay)
            .build();
        let queued = exporter.queued.clone();
        let inner = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        Self { inner, queued, max_queue_size: config.max_queue_size }
    }
}

impl SpanProcessor for BoundedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.queued.fetch_add(1, Relaxed) >= self.max_queue_size {
            self.queued.fetch_sub(1, Relaxed);
            dropped("queue_full").increment(1);
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

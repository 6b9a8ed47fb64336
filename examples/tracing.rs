//! Traces with OpenTelemetry in your process: your tracer, your exporter, and a `TracePropagator` that connects the spans of
//! netagg with the traces of other processes. The exporter of this example prints each span with its links.
//!
//! `cargo run -p netagg-examples --features traces --example tracing`

use std::error::Error;
use std::sync::Arc;

use netagg_core::memory::{MemoryDeadLetters, MemoryEventStore, MemoryLog};
use netagg_core::ports::{EventPublisher, TracePropagator};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Ingestor, TraceContext, TracedPublisher};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Connects spans over OpenTelemetry.
#[derive(Debug)]
struct OpenTelemetry;

impl TracePropagator for OpenTelemetry {
    fn set_parent(&self, span: &Span, parent: &TraceContext) {
        // An error means that no OpenTelemetry layer sees the span.
        let _ = span.set_parent(Context::new().with_remote_span_context(remote(parent)));
    }

    fn add_link(&self, span: &Span, link: &TraceContext) {
        span.add_link(remote(link));
    }

    fn context(&self, span: &Span) -> Option<TraceContext> {
        let context = span.context();
        let span = context.span();
        let found = span.span_context();
        let ids = (found.trace_id().to_bytes(), found.span_id().to_bytes());
        TraceContext::new(u128::from_be_bytes(ids.0), u64::from_be_bytes(ids.1), found.is_sampled())
    }
}

fn remote(context: &TraceContext) -> SpanContext {
    let (trace_id, span_id) = context.ids();
    let flags = TraceFlags::default().with_sampled(context.is_sampled());
    SpanContext::new(trace_id.into(), span_id.into(), flags, true, TraceState::default())
}

/// Prints spans. Use `opentelemetry-otlp` to send them to a collector.
#[derive(Debug)]
struct Print;

impl SpanExporter for Print {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        for span in spans {
            println!("{}: {} links", span.name, span.links.len());
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = SdkTracerProvider::builder().with_simple_exporter(Print).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("example"));
    tracing_subscriber::registry().with(layer.with_filter(LevelFilter::INFO)).init();

    let log = Arc::new(MemoryLog::new("events.telecom", 1));
    let publisher = TracedPublisher::new(log.clone(), "events.telecom", Arc::new(OpenTelemetry));
    let event = event(EventTemplate::default());
    publisher.publish(vec![event.keyed_record(event.encode())]).await?;
    log.close();

    let ingestor = Ingestor::new(Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()))
        .with_trace_propagator(Arc::new(OpenTelemetry));
    ingestor.run(&mut log.source("ingestor-group"), CancellationToken::new()).await?;
    provider.shutdown()?;
    Ok(())
}

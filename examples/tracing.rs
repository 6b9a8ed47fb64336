//! Traces with OpenTelemetry in your process: your tracer, your exporter, and `OtelPropagator`, which connects the spans of
//! netagg with the traces of other processes. The exporter of this example prints each span with its links.
//!
//! `cargo run -p netagg-examples --features traces --example tracing`

use std::error::Error;
use std::sync::Arc;

use netagg_core::memory::{MemoryDeadLetters, MemoryEventStore, MemoryLog};
use netagg_core::opentelemetry::trace::TracerProvider;
use netagg_core::ports::EventPublisher;
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Ingestor, OtelPropagator, TracedPublisher, tracing_opentelemetry};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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
    let publisher = TracedPublisher::new(log.clone(), "events.telecom", Arc::new(OtelPropagator));
    let event = event(EventTemplate::default());
    publisher.publish(vec![event.keyed_record(event.encode())]).await?;
    log.close();

    let ingestor = Ingestor::new(Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()))
        .with_trace_propagator(Arc::new(OtelPropagator));
    ingestor.run(&mut log.source("ingestor-group"), CancellationToken::new()).await?;
    provider.shutdown()?;
    Ok(())
}

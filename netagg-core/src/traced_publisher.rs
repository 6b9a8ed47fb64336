//! A publisher that starts a trace for each call and adds its context to the records.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::Instrument;

use crate::Error;
use crate::TraceContext;
use crate::ports::{EventPublisher, TracePropagator};
use crate::record::OutgoingRecord;

/// Publishes through another publisher, with a span for each call. Each record gets the context of the span in its headers, so
/// the batch that processes the record can refer to the call.
///
/// Only a recorded trace is added: a context that is not [sampled](TraceContext::is_sampled) would make each record larger, and
/// no reader needs it. A record that already has a `traceparent` keeps it.
#[derive(Clone, Debug)]
pub struct TracedPublisher {
    publisher: Arc<dyn EventPublisher>,
    propagator: Arc<dyn TracePropagator>,
    topic: Arc<str>,
}

impl TracedPublisher {
    /// Traces the calls of `publisher`, which writes to `topic`.
    pub fn new(publisher: Arc<dyn EventPublisher>, topic: &str, propagator: Arc<dyn TracePropagator>) -> Self {
        Self { publisher, propagator, topic: topic.into() }
    }
}

#[async_trait]
impl EventPublisher for TracedPublisher {
    async fn publish(&self, mut records: Vec<OutgoingRecord>) -> Result<(), Error> {
        let span = tracing::info_span!(
            "send",
            otel.name = format!("send {}", self.topic),
            otel.kind = "producer",
            otel.status_code = tracing::field::Empty,
            messaging.system = "kafka",
            messaging.operation.name = "send",
            messaging.operation.type = "send",
            messaging.destination.name = &*self.topic,
            messaging.batch.message_count = records.len() as i64,
        );
        if let Some(context) = self.propagator.context(&span).filter(TraceContext::is_sampled) {
            let headers = context.to_headers();
            for record in &mut records {
                if !record.headers.iter().any(|header| header.name == TraceContext::TRACEPARENT) {
                    record.headers.extend(headers.iter().cloned());
                }
            }
        }
        let published = self.publisher.publish(records).instrument(span.clone()).await;
        if published.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        published
    }
}

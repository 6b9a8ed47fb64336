//! Sends events.

use async_trait::async_trait;
use netagg_core::ports::EventPublisher;
use netagg_core::{Error, OutgoingRecord};

use crate::producer::Producer;
use crate::{ConfigError, KafkaConfig};

/// The default of librdkafka, just below the size that brokers accept by default.
const BATCH_BYTES: usize = 1_000_000;

/// Appends events to a topic.
///
/// A call returns when all replicas in sync have all of its records, so no records are left to flush at the end. Each call
/// takes one round trip. So send hundreds of records in a call, or make several calls at once.
///
/// If the broker is unavailable, a call waits up to `message.timeout.ms`, which is 30 s by default.
#[derive(Debug)]
pub struct KafkaPublisher {
    producer: Producer,
}

impl KafkaPublisher {
    /// A publisher to `topic`, which need not exist yet. It connects by itself.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(config: &KafkaConfig, topic: &str) -> Result<Self, ConfigError> {
        Ok(Self { producer: Producer::new(config.producer(BATCH_BYTES), topic)? })
    }
}

#[async_trait]
impl EventPublisher for KafkaPublisher {
    async fn publish(&self, records: Vec<OutgoingRecord>) -> Result<(), Error> {
        // An error that a retry cannot resolve is more important than a retryable error.
        let errors = self.producer.send(&records).await.into_iter().map(|failure| self.producer.explain(failure.error));
        errors.min_by_key(Error::is_retryable).map_or(Ok(()), Err)
    }
}

//! Sends events.

use async_trait::async_trait;
use netagg_core::ports::EventPublisher;
use netagg_core::{Error, OutgoingRecord};

use crate::producer::Producer;
use crate::{ConfigError, KafkaConfig};

/// librdkafka's default, just below the size that brokers take by default.
const BATCH_BYTES: usize = 1_000_000;

/// Appends events to a topic.
///
/// A call returns when all replicas in sync have all of its records, so nothing is left to flush at the end. One call
/// after the other makes one round trip each: send hundreds of records at a time, or several calls at once.
///
/// An absent broker is waited for as long as `message.timeout.ms` says, 30 s unless set otherwise.
#[derive(Debug)]
pub struct KafkaPublisher {
    producer: Producer,
}

impl KafkaPublisher {
    /// A publisher to `topic`, which need not exist yet. It connects by itself.
    ///
    /// # Errors
    /// When librdkafka does not take the configuration.
    pub fn new(config: &KafkaConfig, topic: &str) -> Result<Self, ConfigError> {
        Ok(Self { producer: Producer::new(config.producer(BATCH_BYTES), topic)? })
    }
}

#[async_trait]
impl EventPublisher for KafkaPublisher {
    async fn publish(&self, records: Vec<OutgoingRecord>) -> Result<(), Error> {
        // one that can never succeed matters more than one that may
        let errors = self.producer.send(&records).await.into_iter().map(|failure| self.producer.explain(failure.error));
        errors.min_by_key(Error::is_retryable).map_or(Ok(()), Err)
    }
}

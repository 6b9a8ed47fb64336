//! Writes records that are not valid events to the dead-letter topic.

use async_trait::async_trait;
use bytes::Bytes;
use netagg_core::ports::DeadLetters;
use netagg_core::{DeadLetter, Error, Header, OutgoingRecord};
use rdkafka::error::RDKafkaErrorCode;
use tracing::Span;

use crate::producer::{DeliveryError, Producer};
use crate::{ConfigError, KafkaConfig};

/// The maximum size of a batch. The size limit of a topic applies to a whole batch. So a larger dead letter is sent alone,
/// and only its own size counts.
const BATCH_BYTES: usize = 65_536;

/// Appends dead letters to a topic.
///
/// If the broker rejects a dead letter as too large, even alone, its value is halved until it fits. The header
/// `netagg-truncated` then has the original length of the value. If the key and the headers of the record are too large by
/// themselves, only netagg's headers are kept.
#[derive(Debug)]
pub struct KafkaDeadLetters {
    producer: Producer,
}

impl KafkaDeadLetters {
    /// A writer of dead letters to `topic`, which need not exist yet. It connects by itself.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(config: &KafkaConfig, topic: &str) -> Result<Self, ConfigError> {
        Ok(Self { producer: Producer::new(config.producer(BATCH_BYTES), topic)? })
    }

    /// Sends a dead letter that was rejected as too large, in a batch or alone: first unchanged, then with less and less
    /// content.
    async fn send_shrinking(&self, mut dead_letter: OutgoingRecord) -> Result<(), Error> {
        let whole = dead_letter.value.as_ref().map_or(0, Bytes::len);
        while let Some(failure) = self.producer.send(std::slice::from_ref(&dead_letter)).await.pop() {
            if !is_too_large(&failure) || !shrink(&mut dead_letter, whole) {
                return Err(self.producer.explain(failure.error));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn send(&self, dead_letters: &[DeadLetter]) -> Result<(), Error> {
        Span::current().record("messaging.destination.name", self.producer.topic());
        let mut records: Vec<_> = dead_letters.iter().map(record).collect();
        let failures = self.producer.send(&records).await;
        if let Some(at) = failures.iter().position(|failure| !is_too_large(failure)) {
            return Err(self.producer.explain(failures[at].error.clone()));
        }
        for failure in failures {
            self.send_shrinking(std::mem::take(&mut records[failure.index])).await?;
        }
        Ok(())
    }
}

fn record(dead_letter: &DeadLetter) -> OutgoingRecord {
    let DeadLetter { record, .. } = dead_letter;
    OutgoingRecord { key: record.key.clone(), value: record.value.clone(), headers: dead_letter.headers() }
}

fn is_too_large(failure: &DeliveryError) -> bool {
    matches!(
        failure.error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge)
    )
}

/// Makes `dead_letter` smaller, whose value originally had `whole` bytes. Returns `false` if nothing more can be removed.
fn shrink(dead_letter: &mut OutgoingRecord, whole: usize) -> bool {
    match &mut dead_letter.value {
        Some(value) if !value.is_empty() => value.truncate(value.len() / 2),
        _ => {
            let before = dead_letter.headers.len();
            dead_letter.headers.retain(|header| header.name.starts_with(DeadLetter::HEADER_PREFIX));
            if dead_letter.key.take().is_none() && dead_letter.headers.len() == before {
                return false;
            }
        }
    }
    dead_letter.headers.retain(|header| header.name != DeadLetter::TRUNCATED);
    dead_letter.headers.push(Header::new(DeadLetter::TRUNCATED, whole.to_string()));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_shrinks_to_netaggs_headers_and_no_further() {
        let headers = vec![Header::new("own", "x"), Header::new("netagg-error", "too_deep")];
        let mut dead_letter =
            OutgoingRecord { key: Some("key".into()), value: Some(Bytes::from_static(b"seven77")), headers };
        let mut lengths = Vec::new();
        while shrink(&mut dead_letter, 7) {
            lengths.push(dead_letter.value.as_ref().expect("not null").len());
        }
        assert_eq!(lengths, [3, 1, 0, 0]);
        let headers = vec![Header::new("netagg-error", "too_deep"), Header::new("netagg-truncated", "7")];
        assert_eq!(dead_letter, OutgoingRecord { key: None, value: Some(Bytes::new()), headers });
    }
}

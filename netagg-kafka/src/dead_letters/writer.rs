//! Keeps what is no valid event in a topic of its own.

use async_trait::async_trait;
use bytes::Bytes;
use netagg_core::ports::DeadLetters;
use netagg_core::{DeadLetter, Error, Header, OutgoingRecord};
use rdkafka::error::RDKafkaErrorCode;

use crate::producer::{Failure, Producer};
use crate::{ConfigError, KafkaConfig};

/// The limit of a topic holds for a whole batch: larger letters go alone, so that each is judged by itself.
const BATCH_BYTES: usize = 65_536;

/// Appends dead letters to a topic.
///
/// A letter that the broker finds too large, even alone, is halved until it fits, and the header `netagg-truncated` has
/// the length of its value before; if the record's key and headers are what is too large, netagg's headers alone are
/// kept.
#[derive(Debug)]
pub struct KafkaDeadLetters {
    producer: Producer,
}

impl KafkaDeadLetters {
    /// Dead letters to `topic`, which need not exist yet. It connects by itself.
    ///
    /// # Errors
    /// When librdkafka does not take the configuration.
    pub fn new(config: &KafkaConfig, topic: &str) -> Result<Self, ConfigError> {
        Ok(Self { producer: Producer::new(config.producer(BATCH_BYTES), topic)? })
    }

    /// Sends a letter that was found too large, in a batch or by itself: first as it is, then less and less of it.
    async fn send_what_fits(&self, mut letter: OutgoingRecord) -> Result<(), Error> {
        let whole = letter.value.as_ref().map_or(0, Bytes::len);
        while let Some(failure) = self.producer.send(std::slice::from_ref(&letter)).await.pop() {
            if !is_too_large(&failure) || !shrink(&mut letter, whole) {
                return Err(self.producer.explain(failure.error));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        let mut records: Vec<_> = letters.iter().map(record).collect();
        let failures = self.producer.send(&records).await;
        if let Some(at) = failures.iter().position(|failure| !is_too_large(failure)) {
            return Err(self.producer.explain(failures[at].error.clone()));
        }
        for failure in failures {
            self.send_what_fits(std::mem::take(&mut records[failure.index])).await?;
        }
        Ok(())
    }
}

fn record(letter: &DeadLetter) -> OutgoingRecord {
    let DeadLetter { record, .. } = letter;
    OutgoingRecord { key: record.key.clone(), value: record.value.clone(), headers: letter.headers() }
}

fn is_too_large(failure: &Failure) -> bool {
    matches!(
        failure.error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge)
    )
}

/// Makes `letter`, whose value had `whole` bytes, smaller; false if all that can go is gone.
fn shrink(letter: &mut OutgoingRecord, whole: usize) -> bool {
    match &mut letter.value {
        Some(value) if !value.is_empty() => value.truncate(value.len() / 2),
        _ => {
            let before = letter.headers.len();
            letter.headers.retain(|header| header.name.starts_with(DeadLetter::HEADER_PREFIX));
            if letter.key.take().is_none() && letter.headers.len() == before {
                return false;
            }
        }
    }
    letter.headers.retain(|header| header.name != DeadLetter::TRUNCATED);
    letter.headers.push(Header::new(DeadLetter::TRUNCATED, whole.to_string()));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_shrinks_to_netaggs_headers_and_no_further() {
        let headers = vec![Header::new("own", "x"), Header::new("netagg-error", "too_deep")];
        let mut letter =
            OutgoingRecord { key: Some("key".into()), value: Some(Bytes::from_static(b"seven77")), headers };
        let mut lengths = Vec::new();
        while shrink(&mut letter, 7) {
            lengths.push(letter.value.as_ref().expect("not null").len());
        }
        assert_eq!(lengths, [3, 1, 0, 0]);
        let headers = vec![Header::new("netagg-error", "too_deep"), Header::new("netagg-truncated", "7")];
        assert_eq!(letter, OutgoingRecord { key: None, value: Some(Bytes::new()), headers });
    }
}

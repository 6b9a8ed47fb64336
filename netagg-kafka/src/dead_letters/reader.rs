//! Reads the topic of dead letters.

use netagg_core::{Error, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::stored_letter::StoredLetter;
use crate::KafkaConfig;
use crate::bounded_reader::BoundedReader;
use crate::error::{self, KAFKA};

/// Letters that wait for their reader; each may have the size of the largest message.
const READ_AHEAD: usize = 8;

/// Reads dead letters, without a group and leaving no trace.
#[derive(Clone, Debug)]
pub struct KafkaLetterReader {
    config: KafkaConfig,
    topic: String,
}

impl KafkaLetterReader {
    /// A reader of `topic`. It connects with the first call.
    pub fn new(config: &KafkaConfig, topic: &str) -> Self {
        Self { config: config.clone(), topic: topic.to_owned() }
    }

    /// The letters that are there now, or those whose own timestamp is not before `since`: each partition in order, the
    /// partitions in any. What is written later is not among them.
    ///
    /// # Errors
    /// While the topic is not there or the broker is away.
    pub async fn read(&self, since: Option<Timestamp>) -> Result<Letters, Error> {
        let mut reader = self.reader().await?;
        let (sender, letters) = mpsc::channel(READ_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            if let Some(since) = since {
                reader.start_at(since)?;
            }
            reader.read(|record| {
                let is_before = since.is_some_and(|since| record.instant().is_none_or(|at| at < since));
                is_before || sender.blocking_send(StoredLetter::new(record)).is_ok()
            })
        });
        Ok(Letters { letters, reading: Some(reading) })
    }

    /// The letter at `offset` of `partition`, if there is one.
    ///
    /// # Errors
    /// While the topic is not there or the broker is away.
    pub async fn get(&self, partition: i32, offset: i64) -> Result<Option<StoredLetter>, Error> {
        let mut reader = self.reader().await?;
        let reading = tokio::task::spawn_blocking(move || {
            let mut found = None;
            reader.narrow(partition, offset..offset.saturating_add(1));
            reader.read(|record| {
                found = Some(StoredLetter::new(record));
                false
            })?;
            Ok(found)
        });
        reading.await.map_err(|error| Error::internal(KAFKA, error))?
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    async fn reader(&self) -> Result<BoundedReader, Error> {
        let reader = BoundedReader::open(&self.config, &self.topic).await?;
        reader.ok_or_else(|| Error::NotSetUp {
            dependency: KAFKA,
            reason: error::missing_topic(self.config.brokers(), &self.topic),
            source: None,
        })
    }
}

/// Dead letters, as they are read.
#[derive(Debug)]
pub struct Letters {
    letters: mpsc::Receiver<StoredLetter>,
    reading: Option<JoinHandle<Result<(), Error>>>,
}

impl Letters {
    /// The next letter; `None` after the last one.
    ///
    /// # Errors
    /// When the broker has not answered for 30 s.
    pub async fn next(&mut self) -> Result<Option<StoredLetter>, Error> {
        if let Some(letter) = self.letters.recv().await {
            return Ok(Some(letter));
        }
        if let Some(reading) = self.reading.take() {
            reading.await.map_err(|error| Error::internal(KAFKA, error))??;
        }
        Ok(None)
    }
}

//! Reads the dead-letter topic.

use netagg_core::{Error, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::dlq_record::DlqRecord;
use crate::KafkaConfig;
use crate::bounded_reader::BoundedReader;
use crate::error::{self, KAFKA};

/// How many dead letters wait for their reader. Each may have the size of the largest message.
const READ_AHEAD: usize = 8;

/// Reads dead letters without a consumer group, and commits nothing.
#[derive(Clone, Debug)]
pub struct DlqReader {
    config: KafkaConfig,
    topic: String,
}

impl DlqReader {
    /// A reader of `topic`. It connects with the first call.
    pub fn new(config: &KafkaConfig, topic: &str) -> Self {
        Self { config: config.clone(), topic: topic.to_owned() }
    }

    /// Reads the dead letters that the topic has now. With `since`, reads only dead letters whose own timestamp is not
    /// before this time. The dead letters of a partition come in order, and the partitions come in any order. Dead letters
    /// that are written later are not included.
    ///
    /// # Errors
    /// While the topic does not exist or the broker is unavailable.
    pub async fn read(&self, since: Option<Timestamp>) -> Result<DlqRecords, Error> {
        let mut reader = self.reader().await?;
        let (sender, dead_letters) = mpsc::channel(READ_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            if let Some(since) = since {
                reader.start_at(since)?;
            }
            reader.read(|record| {
                let is_before = since.is_some_and(|since| record.instant().is_none_or(|at| at < since));
                is_before || sender.blocking_send(DlqRecord::new(record)).is_ok()
            })
        });
        Ok(DlqRecords { dead_letters, reading: Some(reading) })
    }

    /// The dead letter at `offset` of `partition`, if there is one.
    ///
    /// # Errors
    /// While the topic does not exist or the broker is unavailable.
    pub async fn get(&self, partition: i32, offset: i64) -> Result<Option<DlqRecord>, Error> {
        let mut reader = self.reader().await?;
        let reading = tokio::task::spawn_blocking(move || {
            let mut found = None;
            reader.narrow(partition, offset..offset.saturating_add(1));
            reader.read(|record| {
                found = Some(DlqRecord::new(record));
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

/// The dead letters that a [`DlqReader`] reads, one after the other.
#[derive(Debug)]
pub struct DlqRecords {
    dead_letters: mpsc::Receiver<DlqRecord>,
    reading: Option<JoinHandle<Result<(), Error>>>,
}

impl DlqRecords {
    /// The next dead letter; `None` after the last one.
    ///
    /// # Errors
    /// When the broker has not answered for 30 s.
    pub async fn next(&mut self) -> Result<Option<DlqRecord>, Error> {
        if let Some(dead_letter) = self.dead_letters.recv().await {
            return Ok(Some(dead_letter));
        }
        if let Some(reading) = self.reading.take() {
            reading.await.map_err(|error| Error::internal(KAFKA, error))??;
        }
        Ok(None)
    }
}

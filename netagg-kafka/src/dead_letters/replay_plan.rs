//! The plan and the report of a replay of dead letters.

use std::collections::BTreeMap;

use netagg_core::Error;
use tokio_util::sync::CancellationToken;

use super::dlq_record::{DlqKind, Replayable, Unreplayable};
use super::filter::DlqFilter;
use super::reader::DlqReader;
use super::replay_markers::Replayed;
use super::replay_producer::KafkaReplay;
use crate::{ConfigError, KafkaConfig};

/// The maximum number of dead letters in one transaction. A short transaction delays no other reader of the topic for long.
const BATCH_DEAD_LETTERS: usize = 1_000;
/// The maximum number of bytes in one transaction, unless a single dead letter is larger.
const BATCH_BYTES: usize = 1 << 20;

/// A replay of dead letters: sends dead letters to the topic that their records came from, each once.
///
/// ```no_run
/// use netagg_kafka::{KafkaConfig, ReplayPlan};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn replay() -> Result<(), netagg_kafka::ReplayError> {
/// let config = KafkaConfig::new("localhost:9092");
/// let plan = ReplayPlan { is_dry_run: true, ..ReplayPlan::default() };
/// let report = plan.run(&config, "events.telecom", "events.telecom.dlq", &CancellationToken::new(), || {}).await?;
/// println!("{} dead letters would be sent", report.sent());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPlan {
    /// Which dead letters to send.
    pub filter: DlqFilter,
    /// The maximum number of dead letters to send; `None` sends all.
    pub limit: Option<u64>,
    /// Whether dead letters that an earlier replay has sent are sent again, too.
    pub includes_sent: bool,
    /// Whether the replay only counts, and sends nothing.
    pub is_dry_run: bool,
}

/// The result of a [`ReplayPlan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayReport {
    /// How many dead letters were sent (in a dry run: would be sent), and how many were sent before, by kind.
    pub kinds: BTreeMap<DlqKind, ReplayCount>,
    /// How many dead letters cannot be sent, by reason.
    pub left_out: BTreeMap<Unreplayable, u64>,
    /// Whether the shutdown ended the replay early. Another replay sends the rest.
    pub is_interrupted: bool,
}

/// The counts of the dead letters of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayCount {
    /// How many dead letters this replay has sent.
    pub sent: u64,
    /// How many dead letters were sent by an earlier replay, or are copies of a dead letter of this replay.
    pub sent_before: u64,
}

impl ReplayReport {
    /// How many dead letters were sent. In a dry run: how many would be sent.
    pub fn sent(&self) -> u64 {
        self.kinds.values().map(|count| count.sent).sum()
    }

    /// How many dead letters had been sent before.
    pub fn sent_before(&self) -> u64 {
        self.kinds.values().map(|count| count.sent_before).sum()
    }
}

/// Why a replay has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// librdkafka rejects the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The topics cannot be read, or the replay cannot begin.
    #[error(transparent)]
    Kafka(#[from] Error),
    /// A transaction failed: none of its dead letters was sent.
    #[error("{source}; {sent} dead letters were sent before this failure, and another replay sends the rest")]
    Transaction {
        /// Why the transaction failed.
        source: Error,
        /// How many dead letters the earlier transactions have sent.
        sent: u64,
    },
}

impl ReplayPlan {
    /// Reads `dlq_topic` and sends the dead letters of the plan to `topic`. Calls `on_read` for each dead letter that was
    /// read. After `shutdown`, the replay reads no further dead letter, and sends the dead letters that it has read.
    ///
    /// # Errors
    /// See [`ReplayError`]. The dead letters of finished transactions stay sent, and the next replay leaves them out.
    pub async fn run(
        &self,
        config: &KafkaConfig,
        topic: &str,
        dlq_topic: &str,
        shutdown: &CancellationToken,
        on_read: impl Fn(),
    ) -> Result<ReplayReport, ReplayError> {
        let mut sender = Sender::default();
        let replayed = if self.is_dry_run {
            Replayed::read(config, dlq_topic).await?
        } else {
            sender.replay.insert(KafkaReplay::new(config, topic, dlq_topic)?).begin().await?
        };
        let mut known = if self.includes_sent { Replayed::new() } else { replayed };
        let mut dead_letters = DlqReader::new(config, dlq_topic).read(self.filter.since).await?;
        let mut report = ReplayReport::default();
        while self.limit.is_none_or(|limit| report.sent() < limit) {
            let dead_letter = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                dead_letter = dead_letters.next() => dead_letter?,
            };
            let Some(dead_letter) = dead_letter else { break };
            on_read();
            if !self.filter.selects(&dead_letter) {
                continue;
            }
            let kind = dead_letter.kind();
            match dead_letter.into_replayable(topic) {
                Err(reason) => *report.left_out.entry(reason).or_default() += 1,
                Ok(dead_letter) if known.insert(dead_letter.source()) => {
                    report.kinds.entry(kind).or_default().sent += 1;
                    sender.send(dead_letter).await?;
                }
                Ok(_) => report.kinds.entry(kind).or_default().sent_before += 1,
            }
        }
        sender.finish().await?;
        report.is_interrupted = shutdown.is_cancelled();
        Ok(report)
    }
}

/// Collects dead letters for transactions. In a dry run there is no replay, and dead letters are dropped.
#[derive(Default)]
struct Sender {
    replay: Option<KafkaReplay>,
    batch: Vec<Replayable>,
    bytes: usize,
    sent: u64,
}

impl Sender {
    async fn send(&mut self, dead_letter: Replayable) -> Result<(), ReplayError> {
        if self.replay.is_some() {
            self.bytes += dead_letter.size();
            self.batch.push(dead_letter);
        }
        if self.batch.len() < BATCH_DEAD_LETTERS && self.bytes < BATCH_BYTES { Ok(()) } else { self.finish().await }
    }

    async fn finish(&mut self) -> Result<(), ReplayError> {
        let Some(replay) = self.replay.as_ref().filter(|_| !self.batch.is_empty()) else { return Ok(()) };
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        let sent = self.sent;
        replay.send(batch).await.map_err(|source| ReplayError::Transaction { source, sent })?;
        self.sent += count;
        self.bytes = 0;
        Ok(())
    }
}

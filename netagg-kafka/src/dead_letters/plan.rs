//! Which dead letters a replay sends, and what became of them.

use std::collections::BTreeMap;

use netagg_core::Error;
use tokio_util::sync::CancellationToken;

use super::filter::LetterFilter;
use super::reader::KafkaLetterReader;
use super::replay::KafkaReplay;
use super::replay_markers::Replayed;
use super::stored_letter::{LetterKind, Replayable, Unreplayable};
use crate::{ConfigError, KafkaConfig};

/// The most letters of one transaction. A short transaction delays no other reader of the topic for long.
const BATCH_LETTERS: usize = 1_000;
/// The most bytes of one transaction, unless a single letter is larger.
const BATCH_BYTES: usize = 1 << 20;

/// A replay of dead letters: sends letters to the topic that their records came from, each once.
///
/// ```no_run
/// use netagg_kafka::{KafkaConfig, ReplayPlan};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn replay() -> Result<(), netagg_kafka::ReplayError> {
/// let config = KafkaConfig::new("localhost:9092");
/// let plan = ReplayPlan { is_dry_run: true, ..ReplayPlan::default() };
/// let report = plan.run(&config, "events.telecom", "events.telecom.dlq", &CancellationToken::new(), || {}).await?;
/// println!("{} letters would be sent", report.sent());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPlan {
    /// Which letters.
    pub filter: LetterFilter,
    /// How many letters are sent at most; all without it.
    pub limit: Option<u64>,
    /// Whether letters that an earlier replay has sent are sent again, too.
    pub includes_sent: bool,
    /// Whether the replay only counts, and sends nothing.
    pub is_dry_run: bool,
}

/// What became of the letters of a [`ReplayPlan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayReport {
    /// The letters that were sent, or would be in a dry run, and those sent before, by kind.
    pub kinds: BTreeMap<LetterKind, ReplayCount>,
    /// The letters that cannot be sent, by reason.
    pub left_out: BTreeMap<Unreplayable, u64>,
    /// Whether the shutdown ended the replay early. Another replay sends the rest.
    pub is_interrupted: bool,
}

/// The letters of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayCount {
    /// Sent by this replay.
    pub sent: u64,
    /// Sent by an earlier replay, or a copy of a letter of this one.
    pub sent_before: u64,
}

impl ReplayReport {
    /// How many letters were sent, or would be in a dry run.
    pub fn sent(&self) -> u64 {
        self.kinds.values().map(|count| count.sent).sum()
    }

    /// How many letters had been sent before.
    pub fn sent_before(&self) -> u64 {
        self.kinds.values().map(|count| count.sent_before).sum()
    }
}

/// Why a replay has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// librdkafka does not take the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The topics cannot be read, or the replay cannot begin.
    #[error(transparent)]
    Kafka(#[from] Error),
    /// A transaction failed: none of its letters was sent.
    #[error("{source}; {sent} letters were sent before that, another replay sends the rest")]
    Transaction {
        /// Why it failed.
        source: Error,
        /// How many letters were sent by the transactions before.
        sent: u64,
    },
}

impl ReplayPlan {
    /// Reads `dlq_topic` and sends the letters of the plan to `topic`. Calls `on_read` for each letter that was read. After
    /// `shutdown` no further letter is read; the letters that were read are sent.
    ///
    /// # Errors
    /// See [`ReplayError`]. The letters of finished transactions stay sent, and the next replay leaves them out.
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
        let mut letters = KafkaLetterReader::new(config, dlq_topic).read(self.filter.since).await?;
        let mut report = ReplayReport::default();
        while self.limit.is_none_or(|limit| report.sent() < limit) {
            let letter = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                letter = letters.next() => letter?,
            };
            let Some(letter) = letter else { break };
            on_read();
            if !self.filter.selects(&letter) {
                continue;
            }
            let kind = letter.kind();
            match letter.into_replayable(topic) {
                Err(reason) => *report.left_out.entry(reason).or_default() += 1,
                Ok(letter) if known.insert(letter.source()) => {
                    report.kinds.entry(kind).or_default().sent += 1;
                    sender.send(letter).await?;
                }
                Ok(_) => report.kinds.entry(kind).or_default().sent_before += 1,
            }
        }
        sender.finish().await?;
        report.is_interrupted = shutdown.is_cancelled();
        Ok(report)
    }
}

/// Collects letters for transactions. In a dry run there is no replay, and letters are dropped.
#[derive(Default)]
struct Sender {
    replay: Option<KafkaReplay>,
    batch: Vec<Replayable>,
    bytes: usize,
    sent: u64,
}

impl Sender {
    async fn send(&mut self, letter: Replayable) -> Result<(), ReplayError> {
        if self.replay.is_some() {
            self.bytes += letter.size();
            self.batch.push(letter);
        }
        if self.batch.len() < BATCH_LETTERS && self.bytes < BATCH_BYTES { Ok(()) } else { self.finish().await }
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

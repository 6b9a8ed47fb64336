//! Finds out that a consumer stands still although the broker has records for it.
//!
//! A consumer may lose its brokers for good (<https://github.com/confluentinc/librdkafka/issues/5301>), or wait for an
//! answer that a network has dropped. It cannot tell this from a topic to which nothing is written. So while a consumer
//! receives nothing, another client asks the broker from time to time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::tails::Tails;
use crate::KafkaConfig;

/// How long a partition gives nothing before the broker is asked.
const QUIET: Duration = Duration::from_secs(20);
/// How long the consumer has to come up to the answer of the broker.
const GRACE: Duration = Duration::from_secs(10);
/// How long one request to the broker may take.
const REQUEST: Duration = Duration::from_secs(5);
/// The longest wait before a consumer is replaced again. The wait doubles with each replacement that brings no record.
const MAX_QUIET: Duration = Duration::from_secs(320);

/// Decides when a consumer is to be replaced.
#[derive(Debug)]
pub(super) struct StallDetector {
    config: KafkaConfig,
    group: String,
    topic: String,
    /// How long a partition gives nothing before the broker is asked.
    quiet: Duration,
    /// Since when the consumer could have received something: it was polled all the time, and nothing was asked.
    watching_since: Instant,
    asking: Option<Receiver<KafkaResult<Offsets>>>,
    suspicion: Option<Suspicion>,
}

/// The offsets of the partitions, as another client learned them from the broker: from the position that the group has
/// committed, or the first one there is, up to the last stable offset.
type Offsets = BTreeMap<i32, Range<i64>>;

#[derive(Debug)]
struct Suspicion {
    since: Instant,
    /// The quiet partitions that have more than was read; empty if the consumer is no member of its group.
    unread: Offsets,
}

impl StallDetector {
    pub(super) fn new(config: KafkaConfig, group: &str, topic: &str) -> Self {
        Self {
            config,
            group: group.to_owned(),
            topic: topic.to_owned(),
            quiet: QUIET,
            watching_since: Instant::now(),
            asking: None,
            suspicion: None,
        }
    }

    /// Begins again: for some time the consumer was not polled, so it could not receive anything.
    pub(super) fn begin_again(&mut self) {
        self.watching_since = Instant::now();
        self.asking = None;
        self.suspicion = None;
    }

    /// Notes that the consumer received something: the next stall is noticed as soon as the first.
    pub(super) fn has_received(&mut self) {
        self.quiet = QUIET;
    }

    /// Why the consumer is to be replaced, if it is. `is_member` tells whether it is connected and in its group.
    pub(super) fn check(&mut self, tails: &Tails, is_member: bool) -> Option<String> {
        let now = Instant::now();
        if let Some(answer) = self.take_answer() {
            self.watching_since = now;
            if let Ok(mut unread) = answer {
                let quiet = tails.quiet_since(now.checked_sub(self.quiet).unwrap_or(now));
                unread.retain(|partition, offsets| has_more(quiet.get(partition), offsets));
                if !is_member || !unread.is_empty() {
                    self.suspicion = Some(Suspicion { since: now, unread });
                }
            }
        }
        if let Some(suspicion) = &mut self.suspicion {
            let quiet = tails.quiet_since(suspicion.since);
            suspicion.unread.retain(|partition, offsets| has_more(quiet.get(partition), offsets));
            if is_member && suspicion.unread.is_empty() {
                self.suspicion = None;
            } else if suspicion.since.elapsed() >= GRACE {
                let partitions: Vec<_> = suspicion.unread.keys().collect();
                let reason = if is_member {
                    format!("no record comes of the partitions {partitions:?}, although the broker has some")
                } else {
                    "the consumer is not in its group, although the broker and the coordinator answer".to_owned()
                };
                self.begin_again();
                self.quiet = (self.quiet * 2).min(MAX_QUIET);
                return Some(reason);
            }
            return None;
        }
        let is_due = self.asking.is_none() && self.watching_since.elapsed() >= self.quiet;
        let quiet = is_due.then(|| tails.quiet_since(now.checked_sub(self.quiet).unwrap_or(now)))?;
        if is_member && quiet.is_empty() {
            return None;
        }
        self.ask(quiet.into_keys().collect());
        None
    }

    /// Asks on a thread of its own, as an answer may take long.
    fn ask(&mut self, partitions: Vec<i32>) {
        let (sender, receiver) = mpsc::channel();
        let (config, group, topic) = (self.config.clone(), self.group.clone(), self.topic.clone());
        let asking = thread::Builder::new().name("kafka probe".to_owned()).spawn(move || {
            // The consumer may have been replaced meanwhile.
            let _ = sender.send(offsets(&config, &group, &topic, &partitions));
        });
        match asking {
            Ok(_) => self.asking = Some(receiver),
            Err(error) => {
                tracing::warn!(%error, "no thread to ask the broker");
                self.watching_since = Instant::now();
            }
        }
    }

    fn take_answer(&mut self) -> Option<KafkaResult<Offsets>> {
        let answer = match self.asking.as_ref()?.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => None,
        };
        self.asking = None;
        if answer.is_none() {
            self.watching_since = Instant::now();
        }
        answer
    }
}

/// Whether a quiet partition has more than was read of it.
fn has_more(quiet: Option<&Option<i64>>, offsets: &Range<i64>) -> bool {
    quiet.is_some_and(|next| next.unwrap_or(offsets.start) < offsets.end)
}

/// The offsets of `partitions` for a member of `group`. Fails if the broker or the coordinator does not answer.
fn offsets(config: &KafkaConfig, group: &str, topic: &str, partitions: &[i32]) -> KafkaResult<Offsets> {
    let consumer: BaseConsumer = config.consumer(group).create()?;
    let mut list = TopicPartitionList::with_capacity(partitions.len().max(1));
    // The coordinator is asked in any case.
    for partition in partitions.iter().chain(partitions.is_empty().then_some(&0)) {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, REQUEST)?;
    let offsets = |partition: &i32| {
        let (first, end) = consumer.fetch_watermarks(topic, *partition, REQUEST)?;
        let committed = match committed.find_partition(topic, *partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => first,
        };
        Ok((*partition, committed.max(first)..end))
    };
    partitions.iter().map(offsets).collect()
}

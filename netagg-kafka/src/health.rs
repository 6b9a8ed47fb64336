//! The state of a consumer, its broker and its partitions, for readiness and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{PartitionId, Position, Record};
use rdkafka::Statistics;

use crate::source::Backlog;

/// Statistics come every second. If none come for this time, the polling thread hangs.
const POLLED: Duration = Duration::from_secs(30);

/// The health of a [`KafkaSource`](crate::KafkaSource). This is a cheap handle that may outlive the source.
#[derive(Clone, Debug)]
pub struct KafkaHealth(Arc<Mutex<State>>);

/// The reason why a source cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct KafkaProblem {
    /// The reason as text, for an operator.
    pub reason: String,
    /// When the problem began.
    pub since: SystemTime,
}

/// The lag of a source in one of its partitions, as of about one second ago.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct SourceLag {
    /// The partition.
    pub partition: PartitionId,
    /// How many offsets the broker held that were not processed.
    pub events: u64,
    /// The age of the oldest record that was read and is not processed, by its own timestamp, to a precision of one second.
    /// If no such record was read, the time for which there has been a record to read. Zero if all offsets were processed.
    pub age: Duration,
}

#[derive(Debug)]
struct State {
    /// Why the source never reads again.
    ended: Option<KafkaProblem>,
    /// When the last statistics came, which librdkafka delivers while the thread polls. `None` before the first statistics
    /// and after the end.
    polled: Option<(Instant, SystemTime)>,
    /// Whether the source is closed. Statistics may still come until the consumer has ended.
    is_closed: bool,
    broker: Option<KafkaProblem>,
    topic: Option<KafkaProblem>,
    group: Option<KafkaProblem>,
    /// How many consumers were replaced.
    replaced: u64,
    /// How many offsets the broker deleted before they were read.
    deleted: u64,
    /// Why the last consumer was replaced, until its successor receives something or has no partition to read.
    stall: Option<KafkaProblem>,
    assigned: BTreeMap<PartitionId, Backlog>,
}

impl KafkaHealth {
    pub(crate) fn new(brokers: &str) -> Self {
        let reason = format!("not connected yet to {brokers}");
        let broker = Some(KafkaProblem { reason, since: SystemTime::now() });
        Self(Arc::new(Mutex::new(State {
            ended: None,
            polled: None,
            is_closed: false,
            broker,
            topic: None,
            group: None,
            replaced: 0,
            deleted: 0,
            stall: None,
            assigned: BTreeMap::new(),
        })))
    }

    /// The reason why the source cannot read. `None` while it can read, and also if it has no partition because the group
    /// has more members than partitions.
    pub fn problem(&self) -> Option<KafkaProblem> {
        let state = self.state();
        if let Some((_, at)) = state.polled.filter(|(polled, _)| polled.elapsed() > POLLED) {
            let reason = "the polling thread hangs".to_owned();
            return Some(KafkaProblem { reason, since: at });
        }
        [&state.ended, &state.stall, &state.broker, &state.topic, &state.group].into_iter().find_map(Clone::clone)
    }

    /// Fails while there is a [`problem`](Self::problem). This is a check for readiness.
    ///
    /// # Errors
    /// The reason, as text.
    pub fn check(&self) -> Result<(), String> {
        self.problem().map_or(Ok(()), |problem| Err(problem.reason))
    }

    /// How many times the consumer was replaced, because it received nothing although the broker had records for it, because it
    /// did not finish a rebalance, or to begin a rebalance for partitions without a member.
    pub fn replaced(&self) -> u64 {
        self.state().replaced
    }

    /// The partitions that are assigned to the source, in order.
    pub fn assigned(&self) -> Vec<PartitionId> {
        self.state().assigned.keys().cloned().collect()
    }

    /// The lag of the source in each assigned partition for which the broker has reported offsets.
    pub fn lag(&self) -> Vec<SourceLag> {
        let now = SystemClock.now();
        let lag = |(partition, backlog): (&PartitionId, &Backlog)| {
            let age = Duration::from_micros(backlog.age_micros(now));
            Some(SourceLag { partition: partition.clone(), events: backlog.events()?, age })
        };
        self.state().assigned.iter().filter_map(lag).collect()
    }

    /// The longest time without a new commit in an assigned partition that has records read and not committed. Zero if
    /// there is no such partition.
    pub fn commit_age(&self) -> Duration {
        let now = SystemClock.now();
        let longest = self.state().assigned.values().map(|backlog| backlog.uncommitted_micros(now)).max();
        Duration::from_micros(longest.unwrap_or(0))
    }

    /// Notes records that are being handed to the reader.
    pub(crate) fn read(&self, records: &[Record]) {
        let now = SystemClock.now();
        let mut state = self.state();
        for run in records.chunk_by(|one, next| one.partition.number == next.partition.number) {
            if let Some(backlog) = run.first().and_then(|record| state.assigned.get_mut(&record.partition)) {
                backlog.read(run, now);
            }
        }
    }

    /// Updates the state from librdkafka's statistics, and from the processed positions of the partitions.
    pub(crate) fn update(&self, statistics: &Statistics, done: &[Position]) {
        let now = SystemClock.now();
        let mut state = self.state();
        if !state.is_closed {
            state.polled = Some((Instant::now(), SystemTime::now()));
        }
        for (partition, backlog) in &mut state.assigned {
            let topic = statistics.topics.get(&*partition.topic);
            let Some(known) = topic.and_then(|topic| topic.partitions.get(&partition.number)) else { continue };
            let done = done.iter().find(|position| position.partition == *partition);
            backlog.update(known, done.map(|position| position.next_offset), now);
        }
    }

    /// Notes that the source is being closed: later statistics do not count as polls.
    pub(crate) fn closed(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.polled = None;
    }

    /// Notes that the source never reads again.
    pub(crate) fn end(&self, reason: String) {
        self.state().ended = Some(KafkaProblem { reason, since: SystemTime::now() });
    }

    /// Notes whether a broker answers; a change is logged.
    pub(crate) fn broker(&self, problem: Option<String>) {
        note(&mut self.state().broker, problem, "brokers");
    }

    /// Notes whether the topic can be read; a change is logged.
    pub(crate) fn topic(&self, problem: Option<String>) {
        note(&mut self.state().topic, problem, "topic");
    }

    /// How many offsets the broker deleted before they were read, as far as noticed. Their records are lost.
    pub fn deleted_unread(&self) -> u64 {
        self.state().deleted
    }

    pub(crate) fn note_deleted(&self, offsets: u64) {
        self.state().deleted += offsets;
    }

    /// Notes whether the group's coordinator answers; a change is logged.
    pub(crate) fn group(&self, problem: Option<String>) {
        note(&mut self.state().group, problem, "group");
    }

    /// Notes that a stalled consumer is replaced by another consumer. `state` is the last state of the stalled consumer,
    /// for the log.
    pub(crate) fn replace(&self, reason: String, state: &str) {
        tracing::warn!(reason, state, "kafka consumer is stalled: it is replaced");
        let mut state = self.state();
        state.replaced += 1;
        let reason = format!("the consumer was stalled and is being replaced: {reason}");
        state.stall = Some(KafkaProblem { reason, since: SystemTime::now() });
    }

    /// Notes that the successor of a stalled consumer works.
    pub(crate) fn recovered(&self) {
        note(&mut self.state().stall, None, "consumer");
    }

    pub(crate) fn topic_is_a_problem(&self) -> bool {
        self.state().topic.is_some()
    }

    pub(crate) fn assign(&self, partitions: &[PartitionId]) {
        self.state().assigned.extend(partitions.iter().map(|partition| (partition.clone(), Backlog::default())));
    }

    pub(crate) fn revoke(&self, partitions: &[PartitionId]) {
        self.state().assigned.retain(|partition, _| !partitions.contains(partition));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(noted: &mut Option<KafkaProblem>, problem: Option<String>, of: &str) {
    match (noted.as_mut(), problem) {
        (None, Some(reason)) => {
            tracing::warn!(reason, "kafka {of}: waiting");
            *noted = Some(KafkaProblem { reason, since: SystemTime::now() });
        }
        (Some(known), Some(reason)) => known.reason = reason,
        (Some(_), None) => {
            tracing::info!("kafka {of}: ready");
            *noted = None;
        }
        (None, None) => {}
    }
}

//! What a consumer knows of its broker and of its partitions, for readiness and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{PartitionId, Position, Record};
use rdkafka::Statistics;

use crate::source::Backlog;

/// Statistics come every second. Without any for so long, the thread that polls hangs.
const POLLED: Duration = Duration::from_secs(30);

/// Tells how a [`KafkaSource`](crate::KafkaSource) fares; a cheap handle that outlives it.
#[derive(Clone, Debug)]
pub struct KafkaHealth(Arc<Mutex<State>>);

/// What keeps a source from reading.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct KafkaProblem {
    /// What is wrong, for a person.
    pub reason: String,
    /// When it began.
    pub since: SystemTime,
}

/// How far a source is behind in one of its partitions, about a second ago.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct SourceLag {
    /// The partition.
    pub partition: PartitionId,
    /// How many offsets the broker held that were not done with.
    pub events: u64,
    /// How old the oldest record is that was read and not done with, by its own timestamp, to a second; while none has
    /// been read, how long there has been one to read. Zero if everything was done with.
    pub age: Duration,
}

#[derive(Debug)]
struct State {
    /// Why the source never reads again.
    ended: Option<KafkaProblem>,
    /// When statistics last came, which are served by polling; `None` before the first and after the end.
    polled: Option<(Instant, SystemTime)>,
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
            broker,
            topic: None,
            group: None,
            replaced: 0,
            deleted: 0,
            stall: None,
            assigned: BTreeMap::new(),
        })))
    }

    /// What keeps the source from reading; `None` while it can, also if it has no partition because there are more
    /// members than partitions.
    pub fn problem(&self) -> Option<KafkaProblem> {
        let state = self.state();
        if let Some((_, at)) = state.polled.filter(|(polled, _)| polled.elapsed() > POLLED) {
            let reason = "the thread that polls stands still".to_owned();
            return Some(KafkaProblem { reason, since: at });
        }
        [&state.ended, &state.stall, &state.broker, &state.topic, &state.group].into_iter().find_map(Clone::clone)
    }

    /// Fails while [`problem`](Self::problem) tells one: a check of readiness.
    ///
    /// # Errors
    /// The reason, as text.
    pub fn check(&self) -> Result<(), String> {
        self.problem().map_or(Ok(()), |problem| Err(problem.reason))
    }

    /// How many times the consumer was replaced because it stood still although the broker had records for it.
    pub fn replaced(&self) -> u64 {
        self.state().replaced
    }

    /// The partitions that are assigned to the source, in order.
    pub fn assigned(&self) -> Vec<PartitionId> {
        self.state().assigned.keys().cloned().collect()
    }

    /// How far the source is behind, for each assigned partition that the broker has told of.
    pub fn lag(&self) -> Vec<SourceLag> {
        let now = SystemClock.now();
        let lag = |(partition, backlog): (&PartitionId, &Backlog)| {
            let age = Duration::from_micros(backlog.age_micros(now));
            Some(SourceLag { partition: partition.clone(), events: backlog.events()?, age })
        };
        self.state().assigned.iter().filter_map(lag).collect()
    }

    /// For how long the broker has had no new commit of some assigned partition of which more is read than committed;
    /// zero if there is none such.
    pub fn commit_age(&self) -> Duration {
        let now = SystemClock.now();
        let longest = self.state().assigned.values().map(|backlog| backlog.uncommitted_micros(now)).max();
        Duration::from_micros(longest.unwrap_or(0))
    }

    /// Notes records on their way to the reader.
    pub(crate) fn read(&self, records: &[Record]) {
        let now = SystemClock.now();
        let mut state = self.state();
        for run in records.chunk_by(|one, next| one.partition.number == next.partition.number) {
            if let Some(backlog) = run.first().and_then(|record| state.assigned.get_mut(&record.partition)) {
                backlog.read(run, now);
            }
        }
    }

    /// Takes in what librdkafka knows, and up to where the partitions are done.
    pub(crate) fn update(&self, statistics: &Statistics, done: &[Position]) {
        let now = SystemClock.now();
        let mut state = self.state();
        state.polled = Some((Instant::now(), SystemTime::now()));
        for (partition, backlog) in &mut state.assigned {
            let topic = statistics.topics.get(&*partition.topic);
            let Some(known) = topic.and_then(|topic| topic.partitions.get(&partition.number)) else { continue };
            let done = done.iter().find(|position| position.partition == *partition);
            backlog.update(known, done.map(|position| position.next_offset), now);
        }
    }

    /// Notes that the source is closed: nothing is polled any more.
    pub(crate) fn closed(&self) {
        self.state().polled = None;
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

    /// How many offsets the broker had deleted before they were read, as far as it was noticed: their records are lost.
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

    /// Notes that another consumer goes on in place of a consumer that stood still, whose last `state` is for the log.
    pub(crate) fn replace(&self, reason: String, state: &str) {
        tracing::warn!(reason, state, "kafka consumer stands still: it is replaced");
        let mut state = self.state();
        state.replaced += 1;
        let reason = format!("the consumer stood still and is being replaced: {reason}");
        state.stall = Some(KafkaProblem { reason, since: SystemTime::now() });
    }

    /// Notes that the successor of a consumer that stood still does its work.
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

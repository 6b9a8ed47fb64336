//! The callbacks of librdkafka, which always run on the polling thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netagg_core::{PartitionId, Position};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::{Offset, TopicPartitionList};

use super::chunker::Delivery;
use super::positions::Positions;
use crate::{KafkaHealth, log};

/// A member finds the coordinator of its group in less time than this, unless the coordinator is unavailable.
const COORDINATOR_MILLIS: i64 = 10_000;

/// A connected broker that has sent nothing for this time does not answer: heartbeats come every second.
const SILENT_MICROS: i64 = 20_000_000;

pub(super) struct Context {
    pub(super) brokers: String,
    pub(super) topic: Arc<str>,
    pub(super) positions: Arc<Positions>,
    pub(super) health: KafkaHealth,
    /// Changes of the assignment since the last poll.
    pub(super) changes: Mutex<Vec<Delivery>>,
    /// The last error of a connection to a broker.
    pub(super) last_error: Mutex<String>,
    /// The state of the consumer in the last statistics.
    pub(super) known: Mutex<Known>,
    /// Whether another consumer replaces this consumer. Then its callbacks only notice that it has left its group.
    pub(super) is_replaced: AtomicBool,
}

/// The state of a consumer in its statistics.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The partitions of the topic; `None` once they have been taken.
    partitions: Option<HashMap<i32, Partition>>,
    membership: Membership,
    /// The state of the consumer in its group, in librdkafka's words.
    state: String,
    /// Whether a replaced consumer is no longer in its group.
    has_left: bool,
}

/// The membership of a consumer in its group, as of the last statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Membership {
    /// Whether a broker answers and the consumer is a member of its group, or about to become one.
    pub(super) is_member: bool,
    /// Whether the consumer is not in a rebalance.
    pub(super) is_settled: bool,
    /// Whether the group has given the consumer no partition, as when it has more members than partitions.
    pub(super) has_nothing_to_read: bool,
}

impl Context {
    pub(super) fn new(brokers: &str, topic: &str, positions: Arc<Positions>, health: KafkaHealth) -> Self {
        Self {
            brokers: brokers.to_owned(),
            topic: topic.into(),
            positions,
            health,
            changes: Mutex::default(),
            last_error: Mutex::default(),
            known: Mutex::default(),
            is_replaced: AtomicBool::new(false),
        }
    }

    /// Gives up all partitions. From then on, the callbacks only notice that the consumer has left its group.
    pub(super) fn replace(&self, consumer: &BaseConsumer<Self>) {
        self.revoke(consumer, self.positions.assigned());
        self.is_replaced.store(true, Ordering::Release);
    }

    /// Why no broker is connected: the last error of a connection, which names a broker.
    fn not_connected(&self) -> String {
        let last_error = self.last_error().clone();
        if last_error.is_empty() { format!("not connected yet to {}", self.brokers) } else { last_error }
    }

    fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
    }

    /// The partitions of the topic in new statistics; `None` if no new statistics have come.
    pub(super) fn take_partitions(&self) -> Option<HashMap<i32, Partition>> {
        self.known().partitions.take()
    }

    pub(super) fn membership(&self) -> Membership {
        self.known().membership
    }

    /// The state of the consumer in its group, in librdkafka's words, for logs.
    pub(super) fn state(&self) -> String {
        self.known().state.clone()
    }

    /// Whether the statistics after [`replace`](Self::replace) show that the consumer is not in its group.
    pub(super) fn has_left(&self) -> bool {
        self.known().has_left
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_changes(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: Delivery) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    fn last_error(&self) -> std::sync::MutexGuard<'_, String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<PartitionId> {
        list.elements().iter().map(|element| PartitionId::new(Arc::clone(&self.topic), element.partition())).collect()
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: Vec<PartitionId>) {
        let done = self.positions.revoke(&partitions);
        // The coordinator processes requests in order. So this commit takes effect before another member gets the
        // partitions, and need not be waited for.
        if !consumer.assignment_lost() {
            let _ = commit(consumer, &done);
        }
        self.health.revoke(&partitions);
        tracing::info!(partitions = ?numbers(&partitions), topic = &*self.topic, "kafka partitions revoked");
        self.change(Delivery::Revoked(partitions));
    }
}

/// Commits `positions` without waiting for the result, which librdkafka does not report.
pub(super) fn commit(consumer: &BaseConsumer<Context>, positions: &[Position]) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    consumer.commit(&list(positions)?, CommitMode::Async)
}

/// `positions` in the form of librdkafka. Do not keep the list: a consumer never ends while one of its lists exists.
pub(super) fn list(positions: &[Position]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for Position { partition, next_offset } in positions {
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*next_offset))?;
    }
    Ok(list)
}

fn numbers(partitions: &[PartitionId]) -> Vec<i32> {
    partitions.iter().map(|partition| partition.number).collect()
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            _ if self.is_replaced() => {}
            Rebalance::Revoke(list) if list.count() > 0 => self.revoke(consumer, self.partitions(list)),
            // After an error, all partitions are given up.
            Rebalance::Error(_) => self.revoke(consumer, self.positions.assigned()),
            _ => {}
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // A cooperative rebalance may assign no partition.
        if let Rebalance::Assign(list) = rebalance
            && list.count() > 0
            && !self.is_replaced()
        {
            let partitions = self.partitions(list);
            let epoch = self.positions.assign(&partitions);
            // The coordinator rejects a commit during the rebalance, and librdkafka does not report it.
            self.positions.send_again();
            self.health.assign(&partitions);
            self.health.broker(None);
            self.health.topic(None);
            self.health.group(None);
            tracing::info!(partitions = ?numbers(&partitions), topic = &*self.topic, "kafka partitions assigned");
            self.change(Delivery::Assigned { epoch, partitions });
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if self.is_replaced() || code == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        tracing::debug!(%error, reason, "kafka consumer");
        match code {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.health.broker(Some(self.not_connected()));
            }
            _ => *self.last_error() = reason.to_owned(),
        }
    }

    fn stats(&self, mut statistics: Statistics) {
        if self.is_replaced() {
            self.known().has_left = statistics.cgrp.is_some_and(|group| group.join_state == "init");
            return;
        }
        let mut connected = statistics.brokers.values().filter(|broker| broker.state == "UP").peekable();
        let problem = if connected.peek().is_none() {
            Some(self.not_connected())
        } else if connected.all(|broker| broker.rxidle > SILENT_MICROS) {
            Some(format!("connected, but no broker answers (brokers {})", self.brokers))
        } else {
            None
        };
        let answers = problem.is_none();
        self.health.broker(problem);
        let group = statistics.cgrp.as_ref().filter(|group| group.state != "up" && group.stateage > COORDINATOR_MILLIS);
        self.health.group(group.map(|group| {
            format!("no coordinator of the group answers (state {}, brokers {})", group.state, self.brokers)
        }));
        self.health.update(&statistics, &self.positions.all());
        // The statistics of a member that never had a partition do not contain the topic.
        let partitions = statistics.topics.remove(&*self.topic).map(|topic| topic.partitions).unwrap_or_default();
        let settled = statistics.cgrp.as_ref().filter(|group| group.join_state == "steady");
        let membership = Membership {
            is_member: answers && group.is_none(),
            is_settled: settled.is_some(),
            has_nothing_to_read: settled.is_some_and(|group| group.assignment_size == 0),
        };
        let state = statistics.cgrp.as_ref().map_or_else(String::new, |group| {
            let (seconds, size) = (group.stateage / 1_000, group.assignment_size);
            format!("{}, {}, {} s, {size} partitions", group.state, group.join_state, seconds)
        });
        *self.known() = Known { partitions: Some(partitions), membership, state, has_left: false };
    }
}

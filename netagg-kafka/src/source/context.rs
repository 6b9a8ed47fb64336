//! What librdkafka calls back, always on the thread that polls.

use std::sync::{Arc, Mutex, PoisonError};

use netagg_core::{PartitionId, Position};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};

use super::outbox::Delivery;
use super::positions::Positions;
use crate::{KafkaHealth, log};

/// A connected broker from which nothing has come for this long does not answer; heartbeats come every second.
const SILENT_MICROS: i64 = 20_000_000;

pub(super) struct Context {
    pub(super) topic: Arc<str>,
    pub(super) positions: Arc<Positions>,
    pub(super) health: KafkaHealth,
    /// Changes of the assignment since the last poll.
    pub(super) changes: Mutex<Vec<Delivery>>,
    /// The last thing a broker's connection complained of.
    pub(super) complaint: Mutex<String>,
}

impl Context {
    pub(super) fn take_changes(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: Delivery) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    fn complaint(&self) -> std::sync::MutexGuard<'_, String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<PartitionId> {
        list.elements().iter().map(|element| PartitionId::new(Arc::clone(&self.topic), element.partition())).collect()
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: Vec<PartitionId>) {
        let done = self.positions.revoke(&partitions);
        // The coordinator takes requests in order, so this one comes before the partitions pass on, without waiting.
        if !consumer.assignment_lost() {
            let _ = commit(consumer, &done);
        }
        self.health.revoke(&partitions);
        tracing::info!(partitions = ?numbers(&partitions), topic = &*self.topic, "kafka partitions revoked");
        self.change(Delivery::Revoked(partitions));
    }
}

/// Sends `positions` without waiting for the answer, which librdkafka tells nobody.
pub(super) fn commit(consumer: &BaseConsumer<Context>, positions: &[Position]) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    consumer.commit(&list(positions)?, CommitMode::Async)
}

/// `positions` as librdkafka takes them. Not to be kept: a consumer never ends while one of its lists lives.
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
            Rebalance::Revoke(list) if list.count() > 0 => self.revoke(consumer, self.partitions(list)),
            // all are given up then
            Rebalance::Error(_) => self.revoke(consumer, self.positions.assigned()),
            _ => {}
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // cooperative rebalances assign nothing at times
        if let Rebalance::Assign(list) = rebalance
            && list.count() > 0
        {
            let partitions = self.partitions(list);
            let epoch = self.positions.assign(&partitions);
            // a commit that met the rebalance was refused, unnoticed
            self.positions.send_again();
            self.health.assign(&partitions);
            self.health.broker(None);
            self.health.topic(None);
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
        tracing::debug!(%error, reason, "kafka consumer");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                let complaint = self.complaint().clone();
                self.health.broker(Some(if complaint.is_empty() { reason.to_owned() } else { complaint }));
            }
            _ => *self.complaint() = reason.to_owned(),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut connected = statistics.brokers.values().filter(|broker| broker.state == "UP").peekable();
        let problem = if connected.peek().is_none() {
            let complaint = self.complaint().clone();
            Some(if complaint.is_empty() { "not connected yet".to_owned() } else { complaint })
        } else if connected.all(|broker| broker.rxidle > SILENT_MICROS) {
            Some("connected, but no broker answers".to_owned())
        } else {
            None
        };
        self.health.broker(problem);
        self.health.update(&statistics, &self.positions.all());
    }
}

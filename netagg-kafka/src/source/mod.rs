//! Reads events as a member of a consumer group.

mod backlog;
mod chunker;
mod context;
mod poller;
mod positions;
mod stall;
mod subscription;
mod tails;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use async_trait::async_trait;
use netagg_core::ports::{EventSource, SourceEvent};
use netagg_core::{Error, PartitionId, Position};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::backlog::Backlog;
use self::chunker::Delivery;
use self::context::Context;
use self::poller::Poller;
use self::positions::Positions;
use self::subscription::Subscription;
use crate::error::{self, KAFKA};
use crate::{ConfigError, KafkaConfig, KafkaHealth};

/// The maximum number of deliveries that wait for the reader.
const DELIVERIES: usize = 8;

/// Reads a topic as a member of a consumer group.
///
/// A separate thread polls the broker, so that the member stays in its group even if its reader is slow. The records that
/// it reads ahead are bounded: by `queued.max.messages.kbytes` inside librdkafka, and by 8 MiB (or eight records, if those
/// are larger) after it. If the reader takes nothing for 2 s, the thread pauses the partitions.
///
/// A partition is read to its end, also where the last offsets hold no record (markers of transactions, aborted or
/// compacted records): [`SourceEvent::Vacant`] reports these offsets within a few seconds.
///
/// A consumer that receives nothing although the broker has records for it is replaced. This takes about half a minute.
/// Meanwhile [`health`](Self::health) has the reason.
///
/// Positions are committed within 100 ms after [`commit`](EventSource::commit), and when partitions are given up.
/// [`close`](EventSource::close) waits until the last positions are committed. A source that is dropped also tries to
/// commit them, but cannot report the result.
pub struct KafkaSource {
    deliveries: mpsc::Receiver<Delivery>,
    positions: Arc<Positions>,
    /// The epochs of the assignments that the reader has received.
    epochs: BTreeMap<PartitionId, u64>,
    health: KafkaHealth,
    brokers: String,
    closing: Arc<AtomicBool>,
    closed: Option<oneshot::Receiver<Result<(), Error>>>,
    thread: Thread,
}

impl KafkaSource {
    /// The longest time that [`close`](EventSource::close) takes.
    pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

    /// A member of `group` that reads `topic`, which need not exist yet. It connects by itself, and waits for a missing
    /// broker or topic. Meanwhile [`health`](Self::health) has the reason.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(config: &KafkaConfig, group: &str, topic: &str) -> Result<Self, ConfigError> {
        let positions = Arc::new(Positions::default());
        let health = KafkaHealth::new(config.brokers());
        let subscription = Subscription { config: config.clone(), group: group.to_owned(), topic: topic.to_owned() };
        let context = Context::new(config.brokers(), topic, Arc::clone(&positions), health.clone());
        let consumer = subscription.member(context)?;
        subscription.join(&consumer)?;
        tracing::info!(brokers = config.brokers(), group, topic, "kafka consumer");

        let (sender, deliveries) = mpsc::channel(DELIVERIES);
        let closing = Arc::new(AtomicBool::new(false));
        let (closed_sender, closed) = oneshot::channel();
        let poller = Poller::new(subscription, consumer, sender, Arc::clone(&closing));
        let thread = thread::Builder::new()
            .name(format!("kafka {group}"))
            .spawn(move || poller.run(closed_sender))
            .map_err(|error| ConfigError::Refused { reason: format!("no thread for the consumer: {error}") })?;
        Ok(Self {
            deliveries,
            positions,
            epochs: BTreeMap::new(),
            health,
            brokers: config.brokers().to_owned(),
            closing,
            closed: Some(closed),
            thread: thread.thread().clone(),
        })
    }

    /// The health of the source, for readiness.
    pub fn health(&self) -> KafkaHealth {
        self.health.clone()
    }
}

#[async_trait]
impl EventSource for KafkaSource {
    async fn next(&mut self) -> Result<SourceEvent, Error> {
        let Some(delivery) = self.deliveries.recv().await else {
            // Only a source that was closed ends without an error.
            let closed = self.closed.is_none();
            if closed {
                return Ok(SourceEvent::End);
            }
            let reason =
                self.health.problem().map_or_else(|| "the consumer has ended".to_owned(), |problem| problem.reason);
            return Err(Error::internal(KAFKA, reason));
        };
        self.thread.unpark();
        match delivery {
            Delivery::Assigned { epoch, partitions } => {
                self.epochs.extend(partitions.iter().map(|partition| (partition.clone(), epoch)));
                Ok(SourceEvent::Assigned(partitions))
            }
            Delivery::Records(records) => Ok(SourceEvent::Records(records)),
            Delivery::Vacant(spans) => Ok(SourceEvent::Vacant(spans)),
            Delivery::Revoked(partitions) => {
                self.epochs.retain(|partition, _| !partitions.contains(partition));
                Ok(SourceEvent::Revoked(partitions))
            }
            Delivery::Failed(error) => Err(error),
        }
    }

    async fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        for position in positions {
            if let Some(epoch) = self.epochs.get(&position.partition) {
                self.positions.offer(position, *epoch);
            }
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Error> {
        let Some(closed) = self.closed.take() else { return Ok(()) };
        self.closing.store(true, Ordering::Release);
        self.thread.unpark();
        self.deliveries.close();
        match tokio::time::timeout(Self::CLOSE_TIMEOUT, closed).await {
            Ok(Ok(committed)) => committed,
            Ok(Err(_)) => Err(Error::internal(KAFKA, "the consumer has ended early")),
            Err(_) => Err(error::silence(&self.brokers)),
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("health", &self.health).finish_non_exhaustive()
    }
}

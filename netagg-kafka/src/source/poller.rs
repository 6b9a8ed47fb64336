//! The polling thread.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use netagg_core::{Error, PartitionId, Position, Record, Span};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use super::chunker::{Chunker, Delivery};
use super::context::{Context, commit, list};
use super::stall::{Stall, StallDetector};
use super::subscription::Subscription;
use super::tails::{Tails, Vacant};
use crate::error::{self, KAFKA};
use crate::{KafkaHealth, record};

/// The maximum time of a poll, or of a wait for the reader.
const POLL: Duration = Duration::from_millis(100);
/// The time limit of a request that blocks the polling thread.
const REQUEST: Duration = Duration::from_secs(1);
/// The minimum time between two commits. The reader decides how often it offers positions.
const COMMIT: Duration = POLL;
/// How often all positions are committed again, because librdkafka does not report a failed commit.
const COMMIT_ALL: Duration = Duration::from_secs(30);
/// How long the thread waits for the reader before it pauses the partitions. Pausing discards the records that were fetched
/// ahead. So it is for a reader that has stopped, not for a reader that is only slower than the broker.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// How often the thread looks for a missing topic.
const TOPIC_CHECK: Duration = Duration::from_secs(2);
/// The minimum time between two warnings about errors that need no reaction.
const WARN: Duration = Duration::from_secs(30);
/// How long a consumer may take to leave its group before its successor joins.
const LEAVE: Duration = Duration::from_secs(10);
/// How long the last commit is tried. This is longer than a rebalance takes, because the coordinator does not answer before
/// the rebalance ends.
const LAST_COMMIT: Duration = Duration::from_secs(3);
/// How long the last commit and the end of the consumer may take together, before the result of the commit is sent. This is
/// shorter than [`KafkaSource::CLOSE_TIMEOUT`](crate::KafkaSource::CLOSE_TIMEOUT).
const CLOSE: Duration = Duration::from_millis(4_000);

/// Owns the consumer. It polls often enough to stay a member of the group, whatever the reader does.
pub(super) struct Poller {
    /// This field is dropped first. So if the thread panics, the reader learns of it at once, although dropping the
    /// consumer may take long.
    deliveries: mpsc::Sender<Delivery>,
    subscription: Arc<Subscription>,
    consumer: BaseConsumer<Context>,
    closing: Arc<AtomicBool>,
    chunker: Chunker,
    tails: Tails,
    stall: StallDetector,
    /// Whether the consumer has replaced a stalled consumer and has not received anything yet.
    is_recovering: bool,
    paused: bool,
    waiting_since: Option<Instant>,
    committed: Instant,
    committed_all: Instant,
    topic_checked: Instant,
    warned: Option<Instant>,
}

impl Poller {
    pub(super) fn new(
        subscription: Subscription,
        consumer: BaseConsumer<Context>,
        deliveries: mpsc::Sender<Delivery>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        let subscription = Arc::new(subscription);
        Self {
            stall: StallDetector::new(Arc::clone(&subscription)),
            tails: Tails::default(),
            deliveries,
            subscription,
            consumer,
            closing,
            chunker: Chunker::default(),
            is_recovering: false,
            paused: false,
            waiting_since: None,
            committed: now,
            committed_all: now,
            topic_checked: now,
            warned: None,
        }
    }

    /// Polls until the source is closed or the consumer fails for good. Then commits, leaves the group, and sends the
    /// result of the last commit to `closed`.
    pub(super) fn run(mut self, closed: oneshot::Sender<Result<(), Error>>) {
        let _guard = PanicGuard(self.consumer.context().health.clone());
        while !self.closing.load(Ordering::Acquire) && !self.deliveries.is_closed() {
            netagg_core::crash::in_task("poller");
            let delivered = self.deliver();
            self.commit_when_due();
            self.check_topic_when_due();
            if delivered {
                self.waiting_since = None;
                self.resume_when_drained();
            } else if !self.paused {
                self.stall.was_not_polled();
                if self.waiting_since.get_or_insert_with(Instant::now).elapsed() < PAUSE_AFTER {
                    thread::park_timeout(POLL);
                    continue;
                }
                self.pause();
            }
            if self.paused {
                self.stall.was_not_polled();
                // The reader can wake a parked thread. It cannot end a poll.
                thread::park_timeout(POLL);
            }
            if !self.gather() {
                self.deliver();
                break;
            }
        }
        self.consumer.context().health.closed();
        let begun = Instant::now();
        let committed = self.last_commit();
        // Dropping the consumer gives up the partitions and leaves the group. Do not unsubscribe before: then the consumer
        // would not leave the group explicitly, and the group would wait for the session timeout. If no broker answers,
        // dropping takes long and cannot leave the group. If a rebalance has just begun, dropping may never end
        // (https://github.com/confluentinc/librdkafka/issues/4884). So the wait for the drop is bounded.
        let wait = if committed.is_ok() { CLOSE.saturating_sub(begun.elapsed()) } else { Duration::ZERO };
        drop_within(wait, self);
        // The receiver of the result may already be gone.
        let _ = closed.send(committed);
    }

    /// Hands over the deliveries that are ready. Returns `false` if the reader must first take a delivery.
    fn deliver(&mut self) -> bool {
        while let Some(delivery) = self.chunker.pop() {
            if let Delivery::Records(records) = &delivery {
                self.consumer.context().health.read(records);
            }
            match self.deliveries.try_send(delivery) {
                Ok(()) => {}
                Err(TrySendError::Full(delivery)) => {
                    self.chunker.put_back(delivery);
                    return false;
                }
                Err(TrySendError::Closed(_)) => return true,
            }
        }
        true
    }

    /// Takes in messages and events until a delivery is ready, or nothing has come for a while. Returns `false` if the
    /// consumer has failed for good.
    fn gather(&mut self) -> bool {
        loop {
            if !self.poll() {
                return false;
            }
            if !self.chunker.is_gathering() {
                return true;
            }
        }
    }

    /// Takes in one message or event. Returns `false` if the consumer has failed for good.
    fn poll(&mut self) -> bool {
        let wait = if self.paused || !self.chunker.is_empty() { Duration::ZERO } else { POLL };
        match self.consumer.poll(wait) {
            Some(Ok(message)) => {
                let record = copy(&self.consumer, &message);
                if let Some(from) = self.tails.skipped_before(record.partition.number, record.offset) {
                    self.skip(&record, from);
                }
                self.tails.read(record.partition.number, record.offset);
                self.stall.has_received();
                self.chunker.record(record);
                self.has_recovered();
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.tails.reach_end(partition);
                self.has_recovered();
            }
            Some(Err(error)) => return self.take_error(error),
            None => {
                self.chunker.close_chunk();
                self.take_changes();
                self.take_statistics();
            }
        }
        true
    }

    /// Reports the offsets from `from`, the committed position of the group, up to `first`, the first record read, as
    /// offsets without a record. The broker may have deleted their records before they were read.
    fn skip(&mut self, first: &Record, from: i64) {
        let Record { partition, offset, .. } = first;
        match self.consumer.fetch_watermarks(&partition.topic, partition.number, REQUEST) {
            Ok((low, _)) => {
                let deleted = if from > 0 { low.min(*offset).saturating_sub(from).max(0) } else { 0 };
                note_deleted(&self.consumer.context().health, partition, from, deleted);
                // A group without a committed position starts at the first offset that the broker has.
                let from = if from > 0 { from } else { low.min(*offset) };
                if from < *offset {
                    self.chunker.event(Delivery::Vacant(vec![vacant(partition.clone(), from..*offset)]));
                }
            }
            Err(error) => tracing::debug!(%error, %partition, from, offset, "cannot report offsets without a record"),
        }
    }

    fn has_recovered(&mut self) {
        if std::mem::take(&mut self.is_recovering) {
            self.consumer.context().health.recovered();
        }
    }

    /// If there are new statistics, looks for offsets without a record, and for a stalled consumer.
    fn take_statistics(&mut self) {
        let context = self.consumer.context();
        let Some(known) = context.take_partitions() else { return };
        let vacant = self.tails.update(&known).into_iter().map(|Vacant { partition, from, to, deleted }| {
            let partition = PartitionId::new(Arc::clone(&context.topic), partition);
            note_deleted(&context.health, &partition, from, deleted);
            vacant(partition, from..to)
        });
        let vacant: Vec<_> = vacant.collect();
        if !vacant.is_empty() {
            self.chunker.event(Delivery::Vacant(vacant));
        }
        let membership = context.membership();
        if membership.has_nothing_to_read {
            self.has_recovered();
        }
        // Without the topic, no consumer can join, and another consumer would not help.
        if !self.consumer.context().health.topic_is_a_problem()
            && let Some(stall) = self.stall.check(&self.tails, membership)
        {
            self.replace_consumer(stall);
        }
    }

    /// Replaces the consumer by another consumer, which joins the group.
    ///
    /// If a rebalance is necessary, the consumer first leaves the group. If its successor joined earlier, a rebalance would begin
    /// while the consumer is still a member, and librdkafka would not leave the group before this rebalance ends. A consumer with
    /// a `group.instance.id` that is dropped earlier stays a member until its session ends, and keeps its partitions.
    fn replace_consumer(&mut self, Stall { reason, needs_rebalance }: Stall) {
        let context = self.consumer.context();
        let health = context.health.clone();
        let successor = Context::new(&context.brokers, &context.topic, Arc::clone(&context.positions), health.clone());
        let successor =
            if needs_rebalance { self.subscription.new_member(successor) } else { self.subscription.member(successor) };
        let successor = match successor {
            Ok(successor) => successor,
            Err(error) => {
                tracing::error!(%error, reason, "the kafka consumer is stalled and cannot be replaced");
                return;
            }
        };
        let state = context.state();
        context.replace(&self.consumer);
        health.replace(reason, &state);
        self.is_recovering = true;
        self.take_changes();
        self.deliver();
        if needs_rebalance {
            self.leave();
        }
        if self.closing.load(Ordering::Acquire) {
            // The source is being closed, so no consumer joins any more.
            drop_within(Duration::ZERO, successor);
            return;
        }
        if let Err(error) = self.subscription.join(&successor) {
            tracing::error!(%error, "the new kafka consumer cannot join the group");
        }
        let stalled = std::mem::replace(&mut self.consumer, successor);
        // A consumer that has lost its brokers may take for ever to end.
        drop_within(Duration::ZERO, stalled);
    }

    /// Leaves the group. librdkafka tells the coordinator when the consumer has given up its partitions, which happens in a poll.
    fn leave(&self) {
        self.consumer.unsubscribe();
        let begun = Instant::now();
        while !self.consumer.context().has_left() && !self.closing.load(Ordering::Acquire) {
            if begun.elapsed() > LEAVE {
                tracing::warn!("the kafka consumer has not left its group in time");
                return;
            }
            drop(self.consumer.poll(POLL));
        }
    }

    fn take_changes(&mut self) {
        for change in self.consumer.context().take_changes() {
            match &change {
                Delivery::Assigned { partitions, .. } => {
                    let committed = self.committed(partitions).unwrap_or_else(|error| {
                        tracing::debug!(%error, "the committed positions of the group are not known");
                        BTreeMap::new()
                    });
                    self.tails.assign(partitions, &committed);
                    self.stall.begin_again();
                    if self.paused {
                        self.log_failed("pause", self.consumer.pause(&without_offsets(partitions)));
                    }
                }
                Delivery::Revoked(partitions) => self.tails.revoke(partitions),
                _ => {}
            }
            self.chunker.event(change);
        }
    }

    /// Handles an error of a poll. Returns `false` if the consumer has failed for good.
    fn take_error(&mut self, error: KafkaError) -> bool {
        let context = self.consumer.context();
        let (brokers, topic) = (context.brokers.as_str(), &*context.topic);
        match (&error, error.rdkafka_error_code()) {
            (KafkaError::MessageConsumptionFatal(_), _) => {
                tracing::error!(%error, brokers, topic, "kafka consumer cannot continue");
                context.health.end(format!("the consumer cannot continue: {error} (brokers {brokers})"));
                self.chunker.event(Delivery::Failed(Error::internal(KAFKA, error)));
                return false;
            }
            (_, Some(code)) if error::is_missing_topic(code) => {
                context.health.topic(Some(error::missing_topic(brokers, topic)))
            }
            (_, Some(code)) if error::is_refused_access(code) => {
                context.health.topic(Some(error::refused_access(code, brokers, topic)));
            }
            // The health has the state of the broker.
            (_, Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure)) => {}
            _ if self.warned.is_some_and(|warned| warned.elapsed() < WARN) => {}
            _ => {
                self.warned = Some(Instant::now());
                tracing::warn!(%error, brokers, topic, "kafka consumer continues after an error");
            }
        }
        true
    }

    fn commit_when_due(&mut self) {
        if self.committed.elapsed() < COMMIT {
            return;
        }
        self.committed = Instant::now();
        let positions = &self.consumer.context().positions;
        if self.committed_all.elapsed() >= COMMIT_ALL {
            self.committed_all = self.committed;
            positions.send_again();
        }
        if let Err(error) = commit(&self.consumer, &positions.take_unsent()) {
            positions.send_again();
            tracing::debug!(%error, "kafka commit; trying again");
        }
    }

    /// Looks for the end of a problem with the topic. librdkafka reports such a problem once, and its end only to members
    /// that get partitions.
    fn check_topic_when_due(&mut self) {
        let context = self.consumer.context();
        if !context.health.topic_is_a_problem() || self.topic_checked.elapsed() < TOPIC_CHECK {
            return;
        }
        self.topic_checked = Instant::now();
        if let Ok(metadata) = self.consumer.fetch_metadata(Some(&context.topic), POLL)
            && metadata.topics().iter().any(|topic| topic.error().is_none() && !topic.partitions().is_empty())
        {
            context.health.topic(None);
        }
    }

    fn pause(&mut self) {
        self.paused = true;
        self.tails.forget_ends();
        tracing::info!(topic = &*self.consumer.context().topic, "kafka consumer paused: its reader takes no records");
        let assigned = self.consumer.context().positions.assigned();
        self.log_failed("pause", self.consumer.pause(&without_offsets(&assigned)));
    }

    fn resume_when_drained(&mut self) {
        if self.paused && self.deliveries.capacity() * 2 >= self.deliveries.max_capacity() {
            self.paused = false;
            self.tails.forget_ends();
            tracing::info!(topic = &*self.consumer.context().topic, "kafka consumer resumed");
            let assigned = self.consumer.context().positions.assigned();
            self.log_failed("resume", self.consumer.resume(&without_offsets(&assigned)));
        }
    }

    fn log_failed(&self, action: &str, result: KafkaResult<()>) {
        if let Err(error) = result {
            tracing::warn!(%error, "kafka consumer cannot {action}");
        }
    }

    /// Commits all positions and waits until the broker has them.
    fn last_commit(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let positions = self.consumer.context().positions.all();
            if positions.is_empty() {
                return Ok(());
            }
            let committed = commit(&self.consumer, &positions).and_then(|()| self.has_committed(&positions));
            match committed {
                Ok(true) => return Ok(()),
                result if begun.elapsed() > LAST_COMMIT => {
                    let error = result.err().unwrap_or(KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut));
                    let context = self.consumer.context();
                    return Err(error::of(error, &context.brokers, &context.topic));
                }
                // A rebalance may block the commit. It ends only if the consumer polls.
                _ => drop(self.consumer.poll(Duration::from_millis(20))),
            }
        }
    }

    /// The committed positions of the group in `partitions`; 0 for a partition without a position.
    fn committed(&self, partitions: &[PartitionId]) -> KafkaResult<BTreeMap<i32, i64>> {
        let committed = self.consumer.committed_offsets(without_offsets(partitions), REQUEST)?;
        let position = |partition: &PartitionId| {
            let found = committed.find_partition(&partition.topic, partition.number)?;
            found.error().ok()?;
            let offset = if let Offset::Offset(offset) = found.offset() { offset } else { 0 };
            Some((partition.number, offset))
        };
        Ok(partitions.iter().filter_map(position).collect())
    }

    fn has_committed(&self, positions: &[Position]) -> KafkaResult<bool> {
        let committed = self.consumer.committed_offsets(list(positions)?, POLL * 5)?;
        Ok(positions.iter().all(|Position { partition, next_offset }| {
            let found = committed.find_partition(&partition.topic, partition.number);
            found.is_some_and(|found| found.offset() == Offset::Offset(*next_offset))
        }))
    }
}

/// Drops `owner`, which owns a consumer, on another thread, and waits at most `wait` for the end of the drop.
fn drop_within<T: Send + 'static>(wait: Duration, owner: T) {
    let (sender, dropped) = channel::<()>();
    let end = move || {
        // The channel is closed after the drop.
        let _sender = sender;
        drop(owner);
    };
    match thread::Builder::new().name("kafka end".to_owned()).spawn(end) {
        Ok(_) if wait.is_zero() => {}
        Ok(_) => {
            if let Err(RecvTimeoutError::Timeout) = dropped.recv_timeout(wait) {
                tracing::warn!("the kafka consumer has not ended in time: it may stay a member until its session ends");
            }
        }
        // The consumer has been dropped on this thread.
        Err(error) => tracing::warn!(%error, "no thread for the end of a kafka consumer"),
    }
}

/// Reports a panic of the thread to the health. Otherwise the health would keep its last state.
struct PanicGuard(KafkaHealth);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end("the thread that polls the brokers has panicked".to_owned());
        }
    }
}

/// Reports offsets that the broker deleted before they were read. Their records are lost, if they held any.
fn note_deleted(health: &KafkaHealth, partition: &PartitionId, from: i64, deleted: i64) {
    if deleted > 0 {
        health.note_deleted(deleted.unsigned_abs());
        tracing::warn!(%partition, from, offsets = deleted, "the broker deleted offsets before they were read");
    }
}

/// The span of `offsets`, which hold no record.
fn vacant(partition: PartitionId, offsets: Range<i64>) -> Span {
    Span { partition, from: offsets.start, to: offsets.end, records: 0, last_timestamp: None }
}

fn copy(consumer: &BaseConsumer<Context>, message: &BorrowedMessage<'_>) -> Record {
    record::copy(message, PartitionId::new(Arc::clone(&consumer.context().topic), message.partition()))
}

/// `partitions` in the form of librdkafka, without offsets. Do not keep the list: see [`list`].
fn without_offsets(partitions: &[PartitionId]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

//! The runtime that ingestors and aggregators share. It reads a source, collects records in batches, and processes several
//! batches at a time. It commits only offsets that are durably processed.

mod batch_span;
mod config;
mod event_consumer;
mod pending_batch;
mod retrier;
mod stats;
mod tracker;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use batch_span::batch_span;
use config::ABANDON_GRACE;
pub use config::ConsumerConfig;
pub use event_consumer::EventConsumer;
use pending_batch::PendingBatch;
pub(crate) use retrier::{Aborted, Retrier};
pub use stats::{ConsumerStats, StatsSnapshot};
use tracker::{OffsetTracker, Ticket};

use crate::Error;
use crate::crash::{self, CrashPoint};
use crate::ports::{EventSource, SourceEvent, TracePropagator};
use crate::record::{PartitionId, Record, Span};

/// Processes the records of a consumer.
#[async_trait]
pub(crate) trait Sink: Debug + Send + Sync + 'static {
    /// Processes `records` and makes their effects durable. After this, all offsets of `spans` are processed.
    async fn process(&self, records: Vec<Record>, spans: Vec<Span>, retrier: &Retrier) -> Result<(), Aborted>;
}

/// Runs `sink` over `source` until the source ends or `shutdown` is cancelled.
///
/// At the end of the source, the consumer finishes and commits all records, however long this takes. After a stop, it finishes
/// and commits the records that it has read, within the configured time.
pub(crate) async fn run(
    source: &mut dyn EventSource,
    sink: Arc<dyn Sink>,
    config: ConsumerConfig,
    stats: Arc<ConsumerStats>,
    propagator: Option<Arc<dyn TracePropagator>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let config = config.without_zeros();
    let abandon = CancellationToken::new();
    let retrier = Retrier::new(config.retry.clone(), abandon.clone(), stats.clone());
    let mut consumer = Consumer {
        sink,
        stats,
        propagator,
        retrier,
        tracker: OffsetTracker::default(),
        batch: PendingBatch::default(),
        unread: Vec::new().into_iter(),
        in_flight: JoinSet::new(),
        config,
    };
    let outcome = consumer.consume(source, &shutdown).await;
    let drained = consumer.drain(&abandon, outcome.is_ok()).await;
    crash::pass(CrashPoint::Drained);
    let committed = source.commit(&consumer.tracker.take_positions()).await;
    let closed = match source.close().await {
        Err(error) if error.is_retryable() && shutdown.is_cancelled() => {
            tracing::warn!(%error, "stopping without a confirmation of the last commit; uncommitted records are delivered again");
            Ok(())
        }
        closed => closed,
    };
    outcome.and(drained).and(committed).and(closed)
}

struct Consumer {
    sink: Arc<dyn Sink>,
    config: ConsumerConfig,
    stats: Arc<ConsumerStats>,
    propagator: Option<Arc<dyn TracePropagator>>,
    retrier: Retrier,
    tracker: OffsetTracker,
    batch: PendingBatch,
    /// Records that the source returned and that did not fit into the batch. While there are any, the source is not read.
    unread: std::vec::IntoIter<Record>,
    in_flight: JoinSet<(Ticket, Result<(), Aborted>)>,
}

impl Consumer {
    async fn consume(&mut self, source: &mut dyn EventSource, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut commit = interval(self.config.commit_interval);
        commit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = self.retrier.backoff();
        let mut has_ended = false;
        loop {
            self.fill_batch();
            let can_dispatch = self.in_flight.len() < self.config.batches_in_flight;
            let is_full = self.batch.is_full(&self.config);
            if can_dispatch && (is_full || has_ended && self.batch.due.is_some()) {
                self.dispatch();
                continue;
            }
            if has_ended && self.in_flight.is_empty() {
                return Ok(());
            }
            let due = self.batch.due.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    crash::pass(CrashPoint::Stopping);
                    return Ok(());
                }
                Some(done) = self.in_flight.join_next() => self.finish(done)?,
                () = sleep_until(due), if self.batch.due.is_some() && can_dispatch => self.dispatch(),
                _ = commit.tick() => {
                    let positions = self.tracker.take_positions();
                    source.commit(&positions).await?;
                    if !positions.is_empty() {
                        crash::pass(CrashPoint::OffsetsCommitted);
                    }
                }
                event = source.next(), if !is_full && !has_ended => match event {
                    Ok(SourceEvent::Records(records)) => {
                        failures = self.retrier.backoff();
                        crash::pass(CrashPoint::Fetched);
                        self.stats.consumed(records.len());
                        self.unread = records.into_iter();
                    }
                    Ok(SourceEvent::Vacant(spans)) => {
                        failures = self.retrier.backoff();
                        for span in &spans {
                            if self.tracker.pass(span) {
                                self.batch.wait_at_most(self.config.batch_timeout);
                            }
                        }
                    }
                    Ok(SourceEvent::Assigned(partitions)) => {
                        crash::pass(CrashPoint::Assigned);
                        tracing::debug!(partitions = %list(&partitions), "assigned");
                    }
                    Ok(SourceEvent::Revoked(partitions)) => {
                        crash::pass(CrashPoint::Revoked);
                        tracing::debug!(partitions = %list(&partitions), "revoked");
                        self.tracker.forget(&partitions);
                        self.batch.forget(&partitions, &self.tracker);
                    }
                    Ok(SourceEvent::End) => has_ended = true,
                    Err(error) if error.is_retryable() => {
                        self.retrier.report(&error);
                        tokio::select! {
                            biased;
                            () = shutdown.cancelled() => return Ok(()),
                            () = sleep(failures.next_delay()) => {}
                        }
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    fn fill_batch(&mut self) {
        while !self.batch.is_full(&self.config)
            && let Some(record) = self.unread.next()
        {
            self.tracker.read(&record);
            self.batch.push(record, self.config.batch_timeout);
        }
    }

    fn dispatch(&mut self) {
        let records = self.batch.take();
        let ticket = self.tracker.start();
        let spans = ticket.spans();
        let (sink, retrier, stats) = (self.sink.clone(), self.retrier.clone(), self.stats.clone());
        let (size, begun) = (records.len(), Instant::now());
        let span = batch_span(&records, self.propagator.as_deref());
        // The task is never cancelled while the consumer runs, because a write to the store must not be dropped halfway.
        self.in_flight.spawn(async move {
            let outcome = sink.process(records, spans, &retrier).instrument(span.clone()).await;
            if outcome.is_err() {
                span.record("otel.status_code", "ERROR");
            } else if size > 0 {
                stats.record_batch(size, begun.elapsed());
            }
            (ticket, outcome)
        });
    }

    fn finish(&mut self, done: Result<(Ticket, Result<(), Aborted>), tokio::task::JoinError>) -> Result<(), Error> {
        let (ticket, outcome) = done.map_err(|error| Error::internal("consumer", error))?;
        match outcome {
            Ok(()) => {
                crash::pass(CrashPoint::BatchDone);
                self.tracker.finish(ticket);
                Ok(())
            }
            Err(Aborted::Stopping) => Ok(()),
            Err(Aborted::Failed(error)) => Err(error),
        }
    }

    /// Finishes the batches in flight, and also the pending records if `with_pending`, within the time for a stop.
    async fn drain(&mut self, abandon: &CancellationToken, with_pending: bool) -> Result<(), Error> {
        let deadline = Instant::now() + self.config.drain_timeout;
        let mut outcome = Ok(());
        while with_pending && outcome.is_ok() {
            self.fill_batch();
            if self.batch.due.is_none() {
                break;
            }
            if self.in_flight.len() < self.config.batches_in_flight {
                self.dispatch();
            } else {
                match timeout_at(deadline, self.in_flight.join_next()).await {
                    Ok(Some(done)) => outcome = self.finish(done),
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
        loop {
            match timeout_at(deadline, self.in_flight.join_next()).await {
                Ok(Some(done)) => outcome = outcome.and(self.finish(done)),
                Ok(None) => return outcome,
                Err(_) => break,
            }
        }
        tracing::warn!(
            batches = self.in_flight.len(),
            "stopping without the batches in flight; their records will be delivered again"
        );
        abandon.cancel();
        let deadline = Instant::now() + ABANDON_GRACE;
        while let Ok(Some(done)) = timeout_at(deadline, self.in_flight.join_next()).await {
            outcome = outcome.and(self.finish(done));
        }
        // A write to the store must not be dropped halfway. A batch that still hangs ends by itself.
        self.in_flight.detach_all();
        outcome
    }
}

fn list(partitions: &[PartitionId]) -> String {
    partitions.iter().map(PartitionId::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;

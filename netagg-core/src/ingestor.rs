//! The ingestor: every valid event into the event store, everything else to the dead letters.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::batch::{Batch, BatchOutcome, IdentifiedEvent};
use crate::consumer::{self, Abandoned, ConsumerConfig, ConsumerStats, Retrier, Sink};
use crate::event::{EventLimits, InvalidEvent, InvalidKind};
use crate::ports::{DeadLetters, EventSource, EventStore};
use crate::record::{DeadLetter, Record, Span};

/// Stores the events of a source, each once.
///
/// A record's position is committed only when its event is durably stored, known as a duplicate, or durably among the
/// dead letters. An absent store is waited for.
#[derive(Debug)]
pub struct Ingestor {
    store: Arc<dyn EventStore>,
    dead_letters: Arc<dyn DeadLetters>,
    limits: EventLimits,
    config: ConsumerConfig,
    stats: Arc<ConsumerStats>,
}

impl Ingestor {
    /// An ingestor into `store`, with the default limits and batches.
    pub fn new(store: Arc<dyn EventStore>, dead_letters: Arc<dyn DeadLetters>) -> Self {
        Self {
            store,
            dead_letters,
            limits: EventLimits::default(),
            config: ConsumerConfig::default(),
            stats: Arc::default(),
        }
    }

    /// Judges events by `limits`. An aggregator of the same events must be given the same.
    #[must_use]
    pub fn with_limits(self, limits: EventLimits) -> Self {
        Self { limits, ..self }
    }

    /// Batches by `config`.
    #[must_use]
    pub fn with_config(self, config: ConsumerConfig) -> Self {
        Self { config, ..self }
    }

    /// Its counters.
    pub fn stats(&self) -> Arc<ConsumerStats> {
        self.stats.clone()
    }

    /// Ingests until `source` has ended and all of it is done and committed, or until `shutdown` is cancelled and what
    /// was read is done or [`ConsumerConfig::drain_timeout`] is over; then closes the source.
    ///
    /// # Errors
    /// Only what no repetition can help.
    pub async fn run(&self, source: &mut dyn EventSource, shutdown: CancellationToken) -> Result<(), Error> {
        let sink = IngestSink {
            store: self.store.clone(),
            dead_letters: self.dead_letters.clone(),
            limits: self.limits,
            stats: self.stats.clone(),
        };
        consumer::run(source, Arc::new(sink), self.config.clone(), self.stats(), shutdown).await
    }
}

#[derive(Debug)]
struct IngestSink {
    store: Arc<dyn EventStore>,
    dead_letters: Arc<dyn DeadLetters>,
    limits: EventLimits,
    stats: Arc<ConsumerStats>,
}

#[async_trait]
impl Sink for IngestSink {
    async fn take(&self, records: Vec<Record>, spans: Vec<Span>, retrier: &Retrier) -> Result<(), Abandoned> {
        let mut events = Vec::with_capacity(records.len());
        let mut letters = Vec::new();
        for record in &records {
            match self.limits.admit(record) {
                Ok(event) => events.push(IdentifiedEvent::from(event)),
                Err(reason) => letters.push(DeadLetter { record: record.clone(), reason }),
            }
        }
        // Before the store notes the spans as done with.
        if !letters.is_empty() {
            retrier.run(|| self.dead_letters.send(&letters)).await?;
        }
        let batch = Batch::new(events, spans);
        let (outcome, refused) = match retrier.run(|| self.store.store(&batch)).await {
            Err(Abandoned::Failed(error @ Error::Refused { .. })) => {
                tracing::error!(%error, "the store refuses a batch; its events are stored one by one");
                self.take_one_by_one(&records, batch.spans().to_vec(), retrier).await?
            }
            outcome => (outcome?, 0),
        };
        log_conflicts(&outcome);
        self.stats.finished(&outcome, letters.len() + refused);
        Ok(())
    }
}

impl IngestSink {
    /// The way out when the store refuses something that passed validation: nothing blocks, and what is refused is
    /// kept among the dead letters. Returns how many those are, too.
    async fn take_one_by_one(
        &self,
        records: &[Record],
        spans: Vec<Span>,
        retrier: &Retrier,
    ) -> Result<(BatchOutcome, usize), Abandoned> {
        let (mut sum, mut refused) = (BatchOutcome::default(), 0);
        for record in records {
            let Ok(event) = self.limits.admit(record) else { continue };
            let batch = Batch::new(vec![IdentifiedEvent::from(event)], Vec::new());
            match retrier.run(|| self.store.store(&batch)).await {
                Ok(outcome) => {
                    sum.new += outcome.new;
                    sum.duplicates += outcome.duplicates;
                    sum.conflicts.extend(outcome.conflicts);
                }
                Err(Abandoned::Failed(error @ Error::Refused { .. })) => {
                    let reason = InvalidEvent::message(InvalidKind::RefusedByStore, error.to_string(), "storable data");
                    let letter = [DeadLetter { record: record.clone(), reason }];
                    retrier.run(|| self.dead_letters.send(&letter)).await?;
                    refused += 1;
                }
                Err(abandoned) => return Err(abandoned),
            }
        }
        let done = Batch::new(Vec::new(), spans);
        retrier.run(|| self.store.store(&done)).await?;
        Ok((sum, refused))
    }
}

/// One line for the first conflict of a batch: a sample, however many there are.
pub(crate) fn log_conflicts(outcome: &BatchOutcome) {
    if let Some(first) = outcome.conflicts.first() {
        tracing::warn!(
            conflicts = outcome.conflicts.len(),
            key = %first.kept.key,
            kept = %first.kept.content,
            dropped = %first.dropped.content,
            "events came again with other content; the first copy counts"
        );
    }
}

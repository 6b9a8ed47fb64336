//! The ingestor stores each valid event in the event store, and sends all other records to the dead letters.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::Error;
use crate::batch::{Batch, BatchOutcome};
use crate::consumer::{self, Aborted, ConsumerConfig, ConsumerStats, EventConsumer, Retrier, Sink};
use crate::crash::{self, CrashPoint};
use crate::dead_letter::DeadLetter;
use crate::event::{EventLimits, IdentifiedEvent, InvalidEvent, InvalidKind};
use crate::json_decoder::JsonDecoder;
use crate::ports::{
    Cache, CombinedStore, DeadLetters, EventDecoder, EventSource, EventStore, TotalsRepair, TracePropagator,
};
use crate::record::{Record, Span};
use crate::repair_loop::{ChangedMonths, TotalsMaintenance};
use crate::validator::Validator;

/// The name of the service.
const SERVICE: &str = "ingestor";

/// Stores each event of a source once.
///
/// The ingestor commits the offset of a record only after one of three results: the event is durably stored, the event is known
/// as a duplicate or a conflict, or the record is durably among the dead letters. If the store is unavailable, the ingestor
/// waits for it.
///
/// A [combined](Self::combined) ingestor also counts the events, and replaces an [`Aggregator`](crate::Aggregator).
#[derive(Debug)]
pub struct Ingestor {
    store: Arc<dyn EventStore>,
    /// Whether the store also counts the events.
    counts: bool,
    maintenance: TotalsMaintenance,
    dead_letters: Arc<dyn DeadLetters>,
    decoder: Arc<dyn EventDecoder>,
    limits: EventLimits,
    config: ConsumerConfig,
    propagator: Option<Arc<dyn TracePropagator>>,
    stats: Arc<ConsumerStats>,
}

impl Ingestor {
    /// An ingestor that stores events in `store`, with the default limits and batch settings.
    pub fn new(store: Arc<dyn EventStore>, dead_letters: Arc<dyn DeadLetters>) -> Self {
        Self {
            store,
            counts: false,
            maintenance: TotalsMaintenance::default(),
            dead_letters,
            decoder: Arc::new(JsonDecoder::new()),
            limits: EventLimits::default(),
            config: ConsumerConfig::default(),
            propagator: None,
            stats: Arc::default(),
        }
    }

    /// An ingestor for `store`, which counts each event in the transaction that stores it. Do not run an aggregator on the same
    /// records.
    pub fn combined(store: Arc<dyn CombinedStore>, dead_letters: Arc<dyn DeadLetters>) -> Self {
        Self { counts: true, ..Self::new(store, dead_letters) }
    }

    /// Invalidates cached responses in `cache` when their totals change, for a [combined](Self::combined) ingestor. While the
    /// cache is unavailable, the invalidation waits.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn Cache>) -> Self {
        self.maintenance.cache = Some(cache);
        self
    }

    /// Runs `repair` every few seconds to correct the totals of dirty days, for a [combined](Self::combined) ingestor. A day
    /// becomes dirty when events that were set aside move to their month partition.
    #[must_use]
    pub fn with_repair(mut self, repair: Arc<dyn TotalsRepair>) -> Self {
        self.maintenance.repair = Some(repair);
        self
    }

    /// Decodes records with `decoder` instead of as JSON. An aggregator of the same records needs the same decoder. Otherwise
    /// the totals differ from the stored events.
    #[must_use]
    pub fn with_decoder(self, decoder: Arc<dyn EventDecoder>) -> Self {
        Self { decoder, ..self }
    }

    /// Accepts only events within `limits`. An aggregator of the same events needs the same limits.
    #[must_use]
    pub fn with_limits(self, limits: EventLimits) -> Self {
        Self { limits, ..self }
    }

    /// Uses the batch settings and timeouts of `config`.
    #[must_use]
    pub fn with_config(self, config: ConsumerConfig) -> Self {
        Self { config, ..self }
    }

    /// Connects the spans of batches with the traces of their records. Without it, spans have no links to other traces.
    #[must_use]
    pub fn with_trace_propagator(self, propagator: Arc<dyn TracePropagator>) -> Self {
        Self { propagator: Some(propagator), ..self }
    }

    /// Adds the label `service` to the metrics that ingestors and aggregators share, for a process that runs both on one
    /// recorder. Call this before [`stats`](Self::stats) and [`register_metrics`](Self::register_metrics), which depend on the
    /// label.
    #[must_use]
    pub fn with_service_label(self) -> Self {
        Self { stats: Arc::new(ConsumerStats::labelled(SERVICE)), ..self }
    }

    /// Registers the counters at 0. A counter that appears only with its first increment would hide this increment from
    /// monitoring.
    ///
    /// [`run`](Self::run) does this at its start. A service that first waits for its database can call this earlier, once its
    /// recorder is installed.
    pub fn register_metrics(&self) {
        self.stats.register_metrics(match self.maintenance.cache {
            Some(_) => &["kafka", "postgres", "redis"],
            None => &["kafka", "postgres"],
        });
        metrics::counter!("netagg_events_stored_total").absolute(0);
        if self.counts {
            metrics::counter!("netagg_events_aggregated_total").absolute(0);
            metrics::counter!("netagg_repaired_days_total").absolute(0);
        }
        for kind in InvalidKind::ALL {
            metrics::counter!("netagg_dead_letters_total", "kind" => kind.as_str()).absolute(0);
        }
    }

    /// The counters of this ingestor.
    pub fn stats(&self) -> Arc<ConsumerStats> {
        self.stats.clone()
    }

    /// Ingests until `source` ends or `shutdown` is cancelled, and closes the source.
    ///
    /// When `source` ends, the ingestor first finishes and commits all records, however long this takes. When `shutdown` is
    /// cancelled, it finishes the records that it has read, for at most [`ConsumerConfig::drain_timeout`].
    ///
    /// # Errors
    /// An error that is not [retryable](Error::is_retryable). Also an error of a commit, and an error of the close at the end of
    /// `source`. All other retryable errors are retried.
    pub async fn run(&self, source: &mut dyn EventSource, shutdown: CancellationToken) -> Result<(), Error> {
        self.register_metrics();
        let changes = Arc::new(ChangedMonths::default());
        let sink = Arc::new(IngestSink {
            store: self.store.clone(),
            changes: self.counts.then(|| changes.clone()),
            dead_letters: self.dead_letters.clone(),
            validator: Validator::new(self.decoder.clone(), self.limits),
            stats: self.stats.clone(),
        });
        let consume = consumer::run(source, sink, self.config.clone(), self.stats(), self.propagator.clone(), shutdown);
        self.maintenance.run_beside(consume, &changes, &self.stats).await
    }
}

#[async_trait]
impl EventConsumer for Ingestor {
    fn service(&self) -> &'static str {
        SERVICE
    }

    fn stats(&self) -> Arc<ConsumerStats> {
        Self::stats(self)
    }

    async fn run(&self, source: &mut dyn EventSource, shutdown: CancellationToken) -> Result<(), Error> {
        Self::run(self, source, shutdown).await
    }
}

#[derive(Debug)]
struct IngestSink {
    store: Arc<dyn EventStore>,
    /// Collects the months whose totals changed, if the store also counts the events.
    changes: Option<Arc<ChangedMonths>>,
    dead_letters: Arc<dyn DeadLetters>,
    validator: Validator,
    stats: Arc<ConsumerStats>,
}

#[async_trait]
impl Sink for IngestSink {
    async fn process(&self, records: Vec<Record>, spans: Vec<Span>, retrier: &Retrier) -> Result<(), Aborted> {
        let mut dead = BTreeSet::new();
        let outcome = loop {
            let batch = self.decode_batch(&records, spans.clone(), &mut dead, retrier).await?;
            match retrier.run(|| self.store.store(&batch)).await {
                Err(Aborted::Failed(Error::MonthsDropped { through })) => self.validator.months_are_dropped(through),
                Err(Aborted::Failed(error @ Error::Refused { .. })) => {
                    tracing::error!(%error, "the store refused a batch; storing its events one by one");
                    return self.process_one_by_one(&records, &spans, dead, retrier).await;
                }
                outcome => break outcome?,
            }
        };
        self.finish(&outcome, dead.len());
        Ok(())
    }
}

impl IngestSink {
    /// Returns the batch of the events in `records`. Sends the records without a valid event to the dead letters, before the
    /// store records their offsets as processed.
    ///
    /// `dead` has the indexes of the records that are already dead letters; the new ones are added.
    async fn decode_batch(
        &self,
        records: &[Record],
        spans: Vec<Span>,
        dead: &mut BTreeSet<usize>,
        retrier: &Retrier,
    ) -> Result<Batch<IdentifiedEvent>, Aborted> {
        let mut batch = Batch::builder(spans);
        let mut dead_letters = Vec::new();
        tracing::info_span!("decode").in_scope(|| {
            for (index, record) in records.iter().enumerate() {
                let validated = if dead.contains(&index) { None } else { Some(self.validator.validate(record)) };
                match validated {
                    Some(Ok(event)) => batch.push(&record.partition, record.offset, event.into()),
                    Some(Err(reason)) => {
                        dead_letters.push(DeadLetter { record: record.clone(), reason });
                        dead.insert(index);
                        batch.reject(&record.partition, record.offset);
                    }
                    None => batch.reject(&record.partition, record.offset),
                }
            }
        });
        if !dead_letters.is_empty() {
            self.send(&dead_letters, retrier).await?;
            crash::pass(CrashPoint::DeadLettersSent);
        }
        Ok(batch.build())
    }

    /// Stores each event in a batch of its own, after the store has refused a batch of valid events. The record of a refused
    /// event becomes a dead letter, so it does not block its partition.
    async fn process_one_by_one(
        &self,
        records: &[Record],
        spans: &[Span],
        mut dead: BTreeSet<usize>,
        retrier: &Retrier,
    ) -> Result<(), Aborted> {
        let (record_spans, vacant) = spans_by_record(records, spans);
        for (index, (record, span)) in records.iter().zip(record_spans).enumerate() {
            let mut is_dead: BTreeSet<usize> = dead.take(&index).into_iter().map(|_| 0).collect();
            let outcome = loop {
                let batch =
                    self.decode_batch(std::slice::from_ref(record), span.clone(), &mut is_dead, retrier).await?;
                match retrier.run(|| self.store.store(&batch)).await {
                    Err(Aborted::Failed(Error::MonthsDropped { through })) => {
                        self.validator.months_are_dropped(through);
                    }
                    Err(Aborted::Failed(error @ Error::Refused { .. })) if is_dead.insert(0) => {
                        let reason =
                            InvalidEvent::message(InvalidKind::RefusedByStore, error.to_string(), "storable data");
                        let dead_letter = [DeadLetter { record: record.clone(), reason }];
                        self.send(&dead_letter, retrier).await?;
                    }
                    outcome => break outcome?,
                }
            };
            self.finish(&outcome, is_dead.len());
        }
        if !vacant.is_empty() {
            let batch = Batch::builder(vacant).build();
            retrier.run(|| self.store.store(&batch)).await?;
        }
        Ok(())
    }

    async fn send(&self, dead_letters: &[DeadLetter], retrier: &Retrier) -> Result<(), Aborted> {
        let span = tracing::info_span!(
            "send dead letters",
            otel.kind = "producer",
            messaging.system = "kafka",
            messaging.operation.name = "send",
            messaging.operation.type = "send",
            // Only the adapter knows its topic.
            messaging.destination.name = field::Empty,
            messaging.batch.message_count = dead_letters.len() as i64,
        );
        retrier.run(|| self.dead_letters.send(dead_letters)).instrument(span).await?;
        for dead_letter in dead_letters {
            metrics::counter!("netagg_dead_letters_total", "kind" => dead_letter.reason.kind().as_str()).increment(1);
        }
        Ok(())
    }

    fn finish(&self, outcome: &BatchOutcome, dead: usize) {
        log_conflicts(outcome);
        self.stats.finished(outcome, dead);
        metrics::counter!("netagg_events_stored_total").increment(outcome.new);
        if let Some(changes) = &self.changes {
            changes.add(outcome.days.iter().map(|day| day.month()));
            metrics::counter!("netagg_events_aggregated_total").increment(outcome.new);
        }
    }
}

/// Splits `spans` into parts that end with one record each, and the parts after the last records, which hold no record.
/// Together the parts cover the same offsets as `spans`.
fn spans_by_record(records: &[Record], spans: &[Span]) -> (Vec<Vec<Span>>, Vec<Span>) {
    let mut rest = spans.to_vec();
    let record_spans = records.iter().map(|record| {
        let covers =
            |span: &&mut Span| span.partition == record.partition && (span.from..span.to).contains(&record.offset);
        let Some(span) = rest.iter_mut().find(covers) else { return Vec::new() };
        let part = Span {
            to: record.offset + 1,
            records: 1,
            last_timestamp: record.instant().or(span.last_timestamp),
            ..span.clone()
        };
        span.from = part.to;
        vec![part]
    });
    let record_spans = record_spans.collect();
    rest.retain_mut(|span| {
        span.records = 0;
        span.from < span.to
    });
    (record_spans, rest)
}

/// Logs the number of conflicts of a batch, with the first conflict as a sample.
pub(crate) fn log_conflicts(outcome: &BatchOutcome) {
    if let Some(first) = outcome.conflicts.first() {
        tracing::warn!(
            conflicts = outcome.conflicts.len(),
            key = %first.kept.key,
            kept = %first.kept.content,
            dropped = %first.dropped.content,
            position = first.position.as_ref().map(ToString::to_string),
            "copies of known events had other content and were dropped; the first copies stay"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PartitionId;

    #[test]
    fn the_parts_of_a_span_join() {
        let partition = PartitionId::new("events", 0);
        let record = |offset| Record::new(partition.clone(), offset, "");
        let span = Span { partition: partition.clone(), from: 3, to: 10, records: 3, last_timestamp: None };
        let records = [record(4), record(5), record(9)];
        let (record_spans, vacant) = spans_by_record(&records, std::slice::from_ref(&span));
        let parts = |parts: Vec<Span>| parts.iter().map(|part| (part.from, part.to, part.records)).collect::<Vec<_>>();
        assert_eq!(parts(record_spans.concat()), [(3, 5, 1), (5, 6, 1), (6, 10, 1)]);
        assert_eq!(parts(vacant), []);
        let (record_spans, vacant) = spans_by_record(&records[..2], &[Span { records: 2, ..span }]);
        assert_eq!(parts(record_spans.concat()), [(3, 5, 1), (5, 6, 1)]);
        assert_eq!(parts(vacant), [(6, 10, 0)], "the offsets after the last record");
    }
}

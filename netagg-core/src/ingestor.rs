//! The ingestor: every valid event into the event store, everything else to the dead letters.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::batch::{Batch, BatchOutcome};
use crate::consumer::{self, Abandoned, ConsumerConfig, ConsumerStats, EventConsumer, Retrier, Sink};
use crate::crash::{self, CrashPoint};
use crate::dead_letter::DeadLetter;
use crate::event::{EventLimits, IdentifiedEvent, InvalidEvent, InvalidKind};
use crate::json_decoder::JsonDecoder;
use crate::ports::{Cache, CombinedStore, DeadLetters, EventDecoder, EventSource, EventStore, TotalsRepair};
use crate::record::{Record, Span};
use crate::totals_maintenance::{ChangedMonths, TotalsMaintenance};
use crate::validator::Validator;

/// The name of the service.
const SERVICE: &str = "ingestor";

/// Stores the events of a source, each once.
///
/// A record's position is committed only when its event is durably stored, known as a duplicate, or durably among the
/// dead letters. An absent store is waited for.
///
/// A [combined](Self::combined) ingestor also counts the events, and takes the place of an
/// [`Aggregator`](crate::Aggregator).
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
    stats: Arc<ConsumerStats>,
}

impl Ingestor {
    /// An ingestor into `store`, with the default limits and batches.
    pub fn new(store: Arc<dyn EventStore>, dead_letters: Arc<dyn DeadLetters>) -> Self {
        Self {
            store,
            counts: false,
            maintenance: TotalsMaintenance::default(),
            dead_letters,
            decoder: Arc::new(JsonDecoder::new()),
            limits: EventLimits::default(),
            config: ConsumerConfig::default(),
            stats: Arc::default(),
        }
    }

    /// An ingestor into `store`, which counts each event in the transaction that stores it. No aggregator reads the same
    /// records.
    pub fn combined(store: Arc<dyn CombinedStore>, dead_letters: Arc<dyn DeadLetters>) -> Self {
        Self { counts: true, ..Self::new(store, dead_letters) }
    }

    /// Invalidates answers in `cache` when their totals change, for a [combined](Self::combined) ingestor. While the cache is
    /// away, the invalidation waits for it.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn Cache>) -> Self {
        self.maintenance.cache = Some(cache);
        self
    }

    /// Has `repair` look now and then for days whose totals are to be computed again, for a [combined](Self::combined)
    /// ingestor: after events moved to a partition that was mended.
    #[must_use]
    pub fn with_repair(mut self, repair: Arc<dyn TotalsRepair>) -> Self {
        self.maintenance.repair = Some(repair);
        self
    }

    /// Decodes records by `decoder` instead of as JSON. An aggregator of the same records must be given the same decoder:
    /// otherwise the totals differ from the stored events.
    #[must_use]
    pub fn with_decoder(self, decoder: Arc<dyn EventDecoder>) -> Self {
        Self { decoder, ..self }
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

    /// Adds the label `service` to the metrics that ingestors and aggregators share, for a process that runs both on one
    /// recorder. Call it first: [`stats`](Self::stats) and [`register_metrics`](Self::register_metrics) go by it.
    #[must_use]
    pub fn with_service_label(self) -> Self {
        Self { stats: Arc::new(ConsumerStats::labelled(SERVICE)), ..self }
    }

    /// Registers the counters at 0: a counter that first shows when it moves hides its first move. [`run`](Self::run) does it
    /// first; a service that waits for its database before may call it earlier, once its recorder is installed.
    pub fn register_metrics(&self) {
        self.stats.register_metrics(match self.maintenance.cache {
            Some(_) => &["kafka", "postgres", "redis"],
            None => &["kafka", "postgres"],
        });
        metrics::counter!("netagg_events_stored_total").absolute(0);
        if self.counts {
            metrics::counter!("netagg_events_counted_total").absolute(0);
            metrics::counter!("netagg_repaired_days_total").absolute(0);
        }
        for kind in InvalidKind::ALL {
            metrics::counter!("netagg_dead_letters_total", "kind" => kind.as_str()).absolute(0);
        }
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
        self.register_metrics();
        let changes = Arc::new(ChangedMonths::default());
        let sink = Arc::new(IngestSink {
            store: self.store.clone(),
            changes: self.counts.then(|| changes.clone()),
            dead_letters: self.dead_letters.clone(),
            validator: Validator::new(self.decoder.clone(), self.limits),
            stats: self.stats.clone(),
        });
        let consume = consumer::run(source, sink, self.config.clone(), self.stats(), shutdown);
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
    /// Learns which totals changed, if the store also counts.
    changes: Option<Arc<ChangedMonths>>,
    dead_letters: Arc<dyn DeadLetters>,
    validator: Validator,
    stats: Arc<ConsumerStats>,
}

#[async_trait]
impl Sink for IngestSink {
    async fn take(&self, records: Vec<Record>, spans: Vec<Span>, retrier: &Retrier) -> Result<(), Abandoned> {
        let mut dead = BTreeSet::new();
        let outcome = loop {
            let batch = self.sort(&records, spans.clone(), &mut dead, retrier).await?;
            match retrier.run(|| self.store.store(&batch)).await {
                Err(Abandoned::Failed(Error::MonthsDropped { through })) => self.validator.months_are_dropped(through),
                Err(Abandoned::Failed(error @ Error::Refused { .. })) => {
                    tracing::error!(%error, "the store refuses a batch; its events are stored one by one");
                    return self.take_one_by_one(&records, &spans, dead, retrier).await;
                }
                outcome => break outcome?,
            }
        };
        self.finish(&outcome, dead.len());
        Ok(())
    }
}

impl IngestSink {
    /// The events in `records`. What holds none is sent to the dead letters, before the store notes it as done with;
    /// those whose index is in `dead` are there already.
    async fn sort(
        &self,
        records: &[Record],
        spans: Vec<Span>,
        dead: &mut BTreeSet<usize>,
        retrier: &Retrier,
    ) -> Result<Batch<IdentifiedEvent>, Abandoned> {
        let mut batch = Batch::builder(spans);
        let mut letters = Vec::new();
        for (index, record) in records.iter().enumerate() {
            let verdict = if dead.contains(&index) { None } else { Some(self.validator.validate(record)) };
            match verdict {
                Some(Ok(event)) => batch.push(&record.partition, record.offset, event.into()),
                Some(Err(reason)) => {
                    letters.push(DeadLetter { record: record.clone(), reason });
                    dead.insert(index);
                    batch.reject(&record.partition, record.offset);
                }
                None => batch.reject(&record.partition, record.offset),
            }
        }
        if !letters.is_empty() {
            self.send(&letters, retrier).await?;
            crash::pass(CrashPoint::DeadLettersSent);
        }
        Ok(batch.build())
    }

    /// The way out when the store refuses something that passed validation: nothing blocks, and what is refused is
    /// kept among the dead letters.
    async fn take_one_by_one(
        &self,
        records: &[Record],
        spans: &[Span],
        mut dead: BTreeSet<usize>,
        retrier: &Retrier,
    ) -> Result<(), Abandoned> {
        let (alone, vacant) = each_alone(records, spans);
        for (index, (record, span)) in records.iter().zip(alone).enumerate() {
            let mut is_dead: BTreeSet<usize> = dead.take(&index).into_iter().map(|_| 0).collect();
            let outcome = loop {
                let batch = self.sort(std::slice::from_ref(record), span.clone(), &mut is_dead, retrier).await?;
                match retrier.run(|| self.store.store(&batch)).await {
                    Err(Abandoned::Failed(Error::MonthsDropped { through })) => {
                        self.validator.months_are_dropped(through);
                    }
                    Err(Abandoned::Failed(error @ Error::Refused { .. })) if is_dead.insert(0) => {
                        let reason =
                            InvalidEvent::message(InvalidKind::RefusedByStore, error.to_string(), "storable data");
                        let letter = [DeadLetter { record: record.clone(), reason }];
                        self.send(&letter, retrier).await?;
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

    async fn send(&self, letters: &[DeadLetter], retrier: &Retrier) -> Result<(), Abandoned> {
        retrier.run(|| self.dead_letters.send(letters)).await?;
        for letter in letters {
            metrics::counter!("netagg_dead_letters_total", "kind" => letter.reason.kind().as_str()).increment(1);
        }
        Ok(())
    }

    fn finish(&self, outcome: &BatchOutcome, dead: usize) {
        log_conflicts(outcome);
        self.stats.finished(outcome, dead);
        metrics::counter!("netagg_events_stored_total").increment(outcome.new);
        if let Some(changes) = &self.changes {
            changes.add(outcome.days.iter().map(|day| day.month()));
            metrics::counter!("netagg_events_counted_total").increment(outcome.new);
        }
    }
}

/// For each record the part of its span that ends with it, and the parts after the last records, which hold none.
/// Together they are the spans.
fn each_alone(records: &[Record], spans: &[Span]) -> (Vec<Vec<Span>>, Vec<Span>) {
    let mut rest = spans.to_vec();
    let alone = records.iter().map(|record| {
        let covers =
            |span: &&mut Span| span.partition == record.partition && (span.from..span.to).contains(&record.offset);
        let Some(span) = rest.iter_mut().find(covers) else { return Vec::new() };
        let alone = Span {
            to: record.offset + 1,
            records: 1,
            last_timestamp: record.instant().or(span.last_timestamp),
            ..span.clone()
        };
        span.from = alone.to;
        vec![alone]
    });
    let alone = alone.collect();
    rest.retain_mut(|span| {
        span.records = 0;
        span.from < span.to
    });
    (alone, rest)
}

/// One line for the first conflict of a batch: a sample, however many there are.
pub(crate) fn log_conflicts(outcome: &BatchOutcome) {
    if let Some(first) = outcome.conflicts.first() {
        tracing::warn!(
            conflicts = outcome.conflicts.len(),
            key = %first.kept.key,
            kept = %first.kept.content,
            dropped = %first.dropped.content,
            place = first.place.as_ref().map(ToString::to_string),
            "events came again with other content; the first copy counts"
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
        let (alone, vacant) = each_alone(&records, std::slice::from_ref(&span));
        let parts = |parts: Vec<Span>| parts.iter().map(|part| (part.from, part.to, part.records)).collect::<Vec<_>>();
        assert_eq!(parts(alone.concat()), [(3, 5, 1), (5, 6, 1), (6, 10, 1)]);
        assert_eq!(parts(vacant), []);
        let (alone, vacant) = each_alone(&records[..2], &[Span { records: 2, ..span }]);
        assert_eq!(parts(alone.concat()), [(3, 5, 1), (5, 6, 1)]);
        assert_eq!(parts(vacant), [(6, 10, 0)], "the offsets after the last record");
    }
}

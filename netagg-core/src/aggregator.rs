//! The aggregator counts each valid event in the totals of its day.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::aggregate::Contribution;
use crate::batch::Batch;
use crate::consumer::{self, Aborted, ConsumerConfig, ConsumerStats, EventConsumer, Retrier, Sink};
use crate::event::EventLimits;
use crate::ingestor::log_conflicts;
use crate::json_decoder::JsonDecoder;
use crate::ports::{AggregateStore, Cache, EventDecoder, EventSource, TotalsRepair, TracePropagator};
use crate::record::{Record, Span};
use crate::repair_loop::{ChangedMonths, TotalsMaintenance};
use crate::validator::Validator;

/// The name of the service.
const SERVICE: &str = "aggregator";

/// Counts each event of a source once, and invalidates cached responses whose totals changed.
///
/// The aggregator commits the offset of a record only after its event is durably counted or known as a duplicate or a conflict.
/// The aggregator skips records without a valid event: the [`Ingestor`](crate::Ingestor) sends them to the dead letters.
#[derive(Debug)]
pub struct Aggregator {
    store: Arc<dyn AggregateStore>,
    maintenance: TotalsMaintenance,
    decoder: Arc<dyn EventDecoder>,
    limits: EventLimits,
    config: ConsumerConfig,
    propagator: Option<Arc<dyn TracePropagator>>,
    stats: Arc<ConsumerStats>,
}

impl Aggregator {
    /// An aggregator that counts events in `store`, with the default limits and batch settings and without a cache.
    pub fn new(store: Arc<dyn AggregateStore>) -> Self {
        Self {
            store,
            maintenance: TotalsMaintenance::default(),
            decoder: Arc::new(JsonDecoder::new()),
            limits: EventLimits::default(),
            config: ConsumerConfig::default(),
            propagator: None,
            stats: Arc::default(),
        }
    }

    /// Invalidates cached responses in `cache` when their totals change. While the cache is unavailable, the invalidation waits.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn Cache>) -> Self {
        self.maintenance.cache = Some(cache);
        self
    }

    /// Runs `repair` every few seconds to correct the totals of dirty days, such as days with a conflict.
    #[must_use]
    pub fn with_repair(mut self, repair: Arc<dyn TotalsRepair>) -> Self {
        self.maintenance.repair = Some(repair);
        self
    }

    /// Decodes records with `decoder` instead of as JSON. An ingestor of the same records needs the same decoder. Otherwise the
    /// totals differ from the stored events.
    #[must_use]
    pub fn with_decoder(self, decoder: Arc<dyn EventDecoder>) -> Self {
        Self { decoder, ..self }
    }

    /// Accepts only events within `limits`. An ingestor of the same events needs the same limits.
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
        self.stats.register_metrics(&["kafka", "postgres", "redis"]);
        metrics::counter!("netagg_events_aggregated_total").absolute(0);
        metrics::counter!("netagg_repaired_days_total").absolute(0);
    }

    /// The counters of this aggregator.
    pub fn stats(&self) -> Arc<ConsumerStats> {
        self.stats.clone()
    }

    /// Aggregates until `source` ends or `shutdown` is cancelled, and closes the source.
    ///
    /// When `source` ends, the aggregator first finishes and commits all records, however long this takes. When `shutdown` is
    /// cancelled, it finishes the records that it has read, for at most [`ConsumerConfig::drain_timeout`].
    ///
    /// # Errors
    /// An error that is not [retryable](Error::is_retryable). Also an error of a commit, and an error of the close at the end of
    /// `source`. All other retryable errors are retried.
    pub async fn run(&self, source: &mut dyn EventSource, shutdown: CancellationToken) -> Result<(), Error> {
        self.register_metrics();
        let changes = Arc::new(ChangedMonths::default());
        let sink = Arc::new(AggregateSink {
            store: self.store.clone(),
            validator: Validator::new(self.decoder.clone(), self.limits),
            stats: self.stats.clone(),
            changes: changes.clone(),
        });
        let consume = consumer::run(source, sink, self.config.clone(), self.stats(), self.propagator.clone(), shutdown);
        self.maintenance.run_beside(consume, &changes, &self.stats).await
    }
}

#[async_trait]
impl EventConsumer for Aggregator {
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
struct AggregateSink {
    store: Arc<dyn AggregateStore>,
    validator: Validator,
    stats: Arc<ConsumerStats>,
    changes: Arc<ChangedMonths>,
}

#[async_trait]
impl Sink for AggregateSink {
    async fn process(&self, records: Vec<Record>, spans: Vec<Span>, retrier: &Retrier) -> Result<(), Aborted> {
        let (outcome, invalid) = loop {
            let (batch, invalid) =
                tracing::info_span!("decode").in_scope(|| self.decode_batch(&records, spans.clone()));
            match retrier.run(|| self.store.add(&batch)).await {
                Err(Aborted::Failed(Error::MonthsDropped { through })) => self.validator.months_are_dropped(through),
                outcome => break (outcome?, invalid),
            }
        };
        self.changes.add(outcome.days.iter().map(|day| day.month()));
        log_conflicts(&outcome);
        self.stats.finished(&outcome, invalid);
        metrics::counter!("netagg_events_aggregated_total").increment(outcome.new);
        Ok(())
    }
}

impl AggregateSink {
    /// Returns the batch of the events in `records`, and the number of records without a valid event.
    fn decode_batch(&self, records: &[Record], spans: Vec<Span>) -> (Batch<Contribution>, usize) {
        let mut invalid = 0;
        let mut batch = Batch::builder(spans);
        for record in records {
            match self.validator.validate(record) {
                Ok(event) => batch.push(&record.partition, record.offset, Contribution::of(&event)),
                Err(_) => {
                    batch.reject(&record.partition, record.offset);
                    invalid += 1;
                }
            }
        }
        (batch.build(), invalid)
    }
}

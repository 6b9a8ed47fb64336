//! The aggregator: every valid event into the totals of its day.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::aggregate::Contribution;
use crate::batch::Batch;
use crate::consumer::{self, Abandoned, ConsumerConfig, ConsumerStats, EventConsumer, Retrier, Sink};
use crate::event::EventLimits;
use crate::ingestor::log_conflicts;
use crate::json_decoder::JsonDecoder;
use crate::ports::{AggregateStore, Cache, EventDecoder, EventSource, TotalsRepair};
use crate::record::{Record, Span};
use crate::totals_maintenance::{ChangedMonths, TotalsMaintenance};
use crate::validator::Validator;

/// The name of the service.
const SERVICE: &str = "aggregator";

/// Counts the events of a source, each once, and tells the cache which totals changed.
///
/// A record's position is committed only when its event is durably counted or known as a duplicate. Records that hold
/// no valid event are passed over: the [`Ingestor`](crate::Ingestor) keeps them among the dead letters.
#[derive(Debug)]
pub struct Aggregator {
    store: Arc<dyn AggregateStore>,
    maintenance: TotalsMaintenance,
    decoder: Arc<dyn EventDecoder>,
    limits: EventLimits,
    config: ConsumerConfig,
    stats: Arc<ConsumerStats>,
}

impl Aggregator {
    /// An aggregator into `store`, with the default limits and batches and no cache.
    pub fn new(store: Arc<dyn AggregateStore>) -> Self {
        Self {
            store,
            maintenance: TotalsMaintenance::default(),
            decoder: Arc::new(JsonDecoder::new()),
            limits: EventLimits::default(),
            config: ConsumerConfig::default(),
            stats: Arc::default(),
        }
    }

    /// Invalidates answers in `cache` when their totals change. While the cache is away, the invalidation waits for it.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn Cache>) -> Self {
        self.maintenance.cache = Some(cache);
        self
    }

    /// Has `repair` look now and then for days whose totals conflicting duplicates have parted from the events.
    #[must_use]
    pub fn with_repair(mut self, repair: Arc<dyn TotalsRepair>) -> Self {
        self.maintenance.repair = Some(repair);
        self
    }

    /// Decodes records by `decoder` instead of as JSON. An ingestor of the same records must be given the same decoder:
    /// otherwise the totals differ from the stored events.
    #[must_use]
    pub fn with_decoder(self, decoder: Arc<dyn EventDecoder>) -> Self {
        Self { decoder, ..self }
    }

    /// Judges events by `limits`. An ingestor of the same events must be given the same.
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
        self.stats.register_metrics(&["kafka", "postgres", "redis"]);
        metrics::counter!("netagg_events_counted_total").absolute(0);
        metrics::counter!("netagg_repaired_days_total").absolute(0);
    }

    /// Its counters.
    pub fn stats(&self) -> Arc<ConsumerStats> {
        self.stats.clone()
    }

    /// Aggregates until `source` has ended and all of it is done and committed, or until `shutdown` is cancelled and
    /// what was read is done or [`ConsumerConfig::drain_timeout`] is over; then closes the source.
    ///
    /// # Errors
    /// Only what no repetition can help.
    pub async fn run(&self, source: &mut dyn EventSource, shutdown: CancellationToken) -> Result<(), Error> {
        self.register_metrics();
        let changes = Arc::new(ChangedMonths::default());
        let sink = Arc::new(AggregateSink {
            store: self.store.clone(),
            validator: Validator::new(self.decoder.clone(), self.limits),
            stats: self.stats.clone(),
            changes: changes.clone(),
        });
        let consume = consumer::run(source, sink, self.config.clone(), self.stats(), shutdown);
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
    async fn take(&self, records: Vec<Record>, spans: Vec<Span>, retrier: &Retrier) -> Result<(), Abandoned> {
        let (outcome, invalid) = loop {
            let mut invalid = 0;
            let mut batch = Batch::builder(spans.clone());
            for record in &records {
                match self.validator.validate(record) {
                    Ok(event) => batch.push(&record.partition, record.offset, Contribution::of(&event)),
                    Err(_) => {
                        batch.reject(&record.partition, record.offset);
                        invalid += 1;
                    }
                }
            }
            let batch = batch.build();
            match retrier.run(|| self.store.add(&batch)).await {
                Err(Abandoned::Failed(Error::MonthsDropped { through })) => self.validator.months_are_dropped(through),
                outcome => break (outcome?, invalid),
            }
        };
        self.changes.add(outcome.days.iter().map(|day| day.month()));
        log_conflicts(&outcome);
        self.stats.finished(&outcome, invalid);
        metrics::counter!("netagg_events_counted_total").increment(outcome.new);
        Ok(())
    }
}

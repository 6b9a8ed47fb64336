//! The aggregator: every valid event into the totals of its day.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::aggregate::Contribution;
use crate::batch::Batch;
use crate::consumer::{self, Abandoned, ConsumerConfig, ConsumerStats, EventConsumer, Retrier, RetryPolicy, Sink};
use crate::event::EventLimits;
use crate::ingestor::log_conflicts;
use crate::json_decoder::JsonDecoder;
use crate::ports::{AggregateStore, Cache, EventDecoder, EventSource, TotalsRepair};
use crate::record::{Record, Span};
use crate::time::Month;
use crate::validator::Validator;

/// How often it is looked for totals to repair, before a random share on top. A conflict is repaired within 30 s.
const REPAIR_INTERVAL: Duration = Duration::from_secs(5);

/// How long a stop waits for the cache to learn of the last changes.
const LAST_INVALIDATION: Duration = Duration::from_secs(1);

/// The name of the service.
const SERVICE: &str = "aggregator";

/// Counts the events of a source, each once, and tells the cache which totals changed.
///
/// A record's position is committed only when its event is durably counted or known as a duplicate. Records that hold
/// no valid event are passed over: the [`Ingestor`](crate::Ingestor) keeps them among the dead letters.
#[derive(Debug)]
pub struct Aggregator {
    store: Arc<dyn AggregateStore>,
    cache: Option<Arc<dyn Cache>>,
    repair: Option<Arc<dyn TotalsRepair>>,
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
            cache: None,
            repair: None,
            decoder: Arc::new(JsonDecoder::new()),
            limits: EventLimits::default(),
            config: ConsumerConfig::default(),
            stats: Arc::default(),
        }
    }

    /// Invalidates answers in `cache` when their totals change. A cache that is away is told as soon as it is back.
    #[must_use]
    pub fn with_cache(self, cache: Arc<dyn Cache>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Has `repair` look now and then for days whose totals conflicting duplicates have parted from the events.
    #[must_use]
    pub fn with_repair(self, repair: Arc<dyn TotalsRepair>) -> Self {
        Self { repair: Some(repair), ..self }
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
        let stop = CancellationToken::new();
        let consume = async {
            let outcome = consumer::run(source, sink, self.config.clone(), self.stats(), shutdown).await;
            stop.cancel();
            outcome
        };
        let repair = async {
            if let Some(repair) = &self.repair {
                keep_repairing(repair.as_ref(), &changes, &stop, self.stats.unwatched()).await;
            }
        };
        let invalidate = async {
            if let Some(cache) = &self.cache {
                invalidate(cache.as_ref(), &changes, &stop, self.stats.unwatched()).await;
            }
        };
        tokio::join!(consume, repair, invalidate).0
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

/// Repairs dirty days until `stop`, beside the consumer, which never waits for it.
async fn keep_repairing(
    repair: &dyn TotalsRepair,
    changes: &ChangedMonths,
    stop: &CancellationToken,
    stats: ConsumerStats,
) {
    let retrier = Retrier::new(RetryPolicy::default(), stop.clone(), Arc::new(stats));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // Members of a group that started together would else look together.
            () = tokio::time::sleep(retrier.jittered(REPAIR_INTERVAL)) => {}
        }
        match retrier.run(|| repair.repair()).await {
            Ok(days) if days.is_empty() => {}
            Ok(days) => {
                tracing::info!(days = days.len(), "totals follow the events again after conflicts");
                metrics::counter!("netagg_repaired_days_total").increment(days.len() as u64);
                changes.add(days.iter().map(|day| day.month()));
            }
            Err(Abandoned::Stopping) => return,
            Err(Abandoned::Failed(error)) => tracing::error!(%error, "totals are not repaired; trying again"),
        }
    }
}

/// The months whose totals changed since the cache was last told: a set, however long the cache is away.
#[derive(Debug, Default)]
struct ChangedMonths {
    months: Mutex<BTreeSet<Month>>,
    added: Notify,
}

impl ChangedMonths {
    fn add(&self, months: impl IntoIterator<Item = Month>) {
        self.months.lock().unwrap_or_else(PoisonError::into_inner).extend(months);
        self.added.notify_one();
    }

    fn take(&self) -> BTreeSet<Month> {
        std::mem::take(&mut *self.months.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tells `cache` what changes until `stop`, beside the consumer, which never waits for it.
async fn invalidate(cache: &dyn Cache, changes: &ChangedMonths, stop: &CancellationToken, stats: ConsumerStats) {
    // Changes that an earlier run committed and could not tell.
    let mut all = true;
    let mut untold = BTreeSet::new();
    let policy = RetryPolicy { max_delay: Duration::from_millis(500), ..RetryPolicy::default() };
    let retrier = Retrier::new(policy, stop.clone(), Arc::new(stats));
    loop {
        untold.append(&mut changes.take());
        tokio::select! {
            biased;
            told = retrier.run(|| tell(cache, all, &untold)) => match told {
                Ok(()) => {
                    all = false;
                    untold.clear();
                }
                Err(Abandoned::Failed(error)) => {
                    tracing::warn!(%error, "the cache cannot be invalidated; it is told again with the next change");
                }
                Err(Abandoned::Stopping) => break,
            },
            () = stop.cancelled() => break,
        }
        tokio::select! {
            biased;
            () = changes.added.notified() => {}
            () = stop.cancelled() => break,
        }
    }
    untold.append(&mut changes.take());
    let told = tokio::time::timeout(LAST_INVALIDATION, tell(cache, false, &untold)).await;
    if !matches!(told, Ok(Ok(()))) {
        tracing::warn!("stopping before the cache learned of the last changes; the next start tells it");
    }
}

async fn tell(cache: &dyn Cache, all: bool, months: &BTreeSet<Month>) -> Result<(), Error> {
    if all {
        return cache.invalidate_all().await;
    }
    if months.is_empty() {
        return Ok(());
    }
    cache.invalidate(&months.iter().copied().collect::<Vec<_>>()).await
}

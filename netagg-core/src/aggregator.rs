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
use crate::consumer::{self, Abandoned, ConsumerConfig, ConsumerStats, Retrier, RetryPolicy, Sink};
use crate::event::EventLimits;
use crate::ingestor::log_conflicts;
use crate::ports::{AggregateStore, Cache, EventSource};
use crate::record::{Record, Span};
use crate::time::Month;

/// How long a stop waits for the cache to learn of the last changes.
const LAST_INVALIDATION: Duration = Duration::from_secs(1);

/// Counts the events of a source, each once, and tells the cache which totals changed.
///
/// A record's position is committed only when its event is durably counted or known as a duplicate. Records that hold
/// no valid event are passed over: the [`Ingestor`](crate::Ingestor) keeps them among the dead letters.
#[derive(Debug)]
pub struct Aggregator {
    store: Arc<dyn AggregateStore>,
    cache: Option<Arc<dyn Cache>>,
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
        let changes = Arc::new(ChangedMonths::default());
        let sink = Arc::new(AggregateSink {
            store: self.store.clone(),
            limits: self.limits,
            stats: self.stats.clone(),
            changes: changes.clone(),
        });
        let consume = consumer::run(source, sink, self.config.clone(), self.stats(), shutdown);
        let Some(cache) = &self.cache else { return consume.await };
        let stop = CancellationToken::new();
        let invalidate = invalidate(cache.as_ref(), &changes, &stop);
        let (outcome, ()) = tokio::join!(
            async {
                let outcome = consume.await;
                stop.cancel();
                outcome
            },
            invalidate
        );
        outcome
    }
}

#[derive(Debug)]
struct AggregateSink {
    store: Arc<dyn AggregateStore>,
    limits: EventLimits,
    stats: Arc<ConsumerStats>,
    changes: Arc<ChangedMonths>,
}

#[async_trait]
impl Sink for AggregateSink {
    async fn take(&self, records: Vec<Record>, spans: Vec<Span>, retrier: &Retrier) -> Result<(), Abandoned> {
        let contributions: Vec<_> = records
            .iter()
            .filter_map(|record| self.limits.admit(record).ok())
            .map(|event| Contribution::of(&event))
            .collect();
        let invalid = records.len() - contributions.len();
        drop(records);
        let batch = Batch::new(contributions, spans);
        let outcome = retrier.run(|| self.store.add(&batch)).await?;
        self.changes.add(outcome.days.iter().map(|day| day.month()));
        log_conflicts(&outcome);
        self.stats.finished(&outcome, invalid);
        Ok(())
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
async fn invalidate(cache: &dyn Cache, changes: &ChangedMonths, stop: &CancellationToken) {
    // Changes that an earlier run committed and could not tell.
    let mut all = true;
    let mut untold = BTreeSet::new();
    let retrier =
        Retrier::new(RetryPolicy { max_delay: Duration::from_millis(500), ..RetryPolicy::default() }, stop.clone());
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

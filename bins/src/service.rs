//! What the services do at their start and beside their job.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use netagg_api::Protection;
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{CompletenessTracker, ConsumerStats, Error, EventLimits, Month, StatsSnapshot, TrackedConsumer};
use netagg_kafka::{KafkaHealth, KafkaTopics};
use netagg_pg::{DropError, EventLimitsError, Partitions, Postgres, Retention, SetAside, WaitingMonth};
use netagg_redis::RedisCache;
use tokio_util::sync::CancellationToken;

use crate::ops::{self, Job, Metrics, Need, Ops, OpsConfig, Readiness};
use crate::{Failure, Shutdown};

/// How often it is made sure that there are partitions ahead, and none that is too old.
const PARTITION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How soon it is tried again when that failed.
const PARTITION_RETRY: Duration = Duration::from_secs(5);

/// How long a service waits for Redis at its start; it goes on without it.
const FIRST_CONNECTION: Duration = Duration::from_millis(500);

/// A service between its start and its stop.
#[derive(Debug)]
pub struct Service {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    /// The consumer's, once it works.
    work: Arc<OnceLock<Arc<ConsumerStats>>>,
    shutdown: Shutdown,
}

impl Service {
    /// Opens the ops port.
    ///
    /// # Errors
    /// When its address cannot be bound.
    pub async fn start(job: Job, ops: OpsConfig, shutdown: Shutdown) -> Result<Self, Failure> {
        let (readiness, metrics) = (Arc::new(Readiness::new(shutdown.clone())), Arc::new(Metrics::install(job)?));
        metrics.sample_readiness(readiness.clone());
        // The port outlives the stop: a service that drains is alive.
        let told = Ops { readiness: readiness.clone(), metrics: metrics.clone() };
        ops::serve(ops, told, &shutdown).await?;
        Ok(Self { readiness, metrics, work: Arc::default(), shutdown })
    }

    /// The token that is cancelled when it is time to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.shutdown.token()
    }

    /// Watches the database and its schema.
    pub fn watch_postgres(&self, name: &'static str, postgres: &Postgres) {
        self.metrics.sample_pool(postgres);
        let (postgres, work) = (postgres.clone(), self.work.clone());
        self.readiness.watch(name, Need::Required, move || {
            let (postgres, work) = (postgres.clone(), work.clone());
            async move {
                postgres.check_schema().await.map_err(|error| error.to_string())?;
                comes_on(&work, name)
            }
        });
    }

    /// Watches whether callers can be told apart, if they are asked who they are.
    pub fn watch_protection(&self, protection: &Protection) {
        if protection.is_open() {
            return;
        }
        let protection = protection.clone();
        self.readiness.watch("credentials", Need::Required, move || std::future::ready(protection.check()));
    }

    /// Has readiness tell what the consumer waits for: a database that answers and takes nothing is not ready.
    pub fn watch_work(&self, stats: Arc<ConsumerStats>) {
        self.work.get_or_init(|| stats);
    }

    /// Watches the consumer.
    pub fn watch_kafka(&self, health: KafkaHealth) {
        self.metrics.sample_lag(health.clone());
        let work = self.work.clone();
        self.readiness.watch("kafka", Need::Required, move || {
            let problem = health.problem().map_or_else(|| comes_on(&work, "kafka"), |problem| Err(problem.reason));
            async move { problem }
        });
    }

    /// Watches the cache, and gives it a moment for its first connection.
    pub async fn watch_redis(&self, cache: &Arc<RedisCache>) {
        // Redis is not asked meanwhile: no request has failed because of a server that is a moment late.
        let _ = tokio::time::timeout(FIRST_CONNECTION, cache.connected()).await;
        let cache = cache.clone();
        self.readiness.watch("redis", Need::Optional, move || {
            let cache = cache.clone();
            async move { cache.ping().await }
        });
    }

    /// Repeats `attempt` until it succeeds; `None` if it is time to stop.
    ///
    /// # Errors
    /// What no repetition can help.
    pub async fn wait_for<T, F>(&self, attempt: impl Fn() -> F) -> Result<Option<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut delays = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(3))
            .without_max_times()
            .build();
        let mut is_told = false;
        loop {
            match attempt().await {
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.is_retryable() => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "waiting");
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = self.shutdown.token().cancelled_owned() => return Ok(None),
                () = tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(3))) => {}
            }
        }
    }

    /// Records the event limits, or checks that they are the recorded ones; `None` if it is time to stop.
    ///
    /// # Errors
    /// When the database has others.
    pub async fn agree_on_limits(
        &self,
        postgres: &Postgres,
        limits: EventLimits,
    ) -> Result<Option<EventLimits>, Failure> {
        let settings = postgres.settings();
        let agreed = self.wait_for(|| async {
            postgres.check_distribution().await?;
            match settings.event_limits(limits).await {
                Ok(limits) => Ok(Ok(limits)),
                Err(EventLimitsError::Store(error)) => Err(error),
                Err(differ) => Ok(Err(differ)),
            }
        });
        match agreed.await? {
            None => Ok(None),
            Some(Ok(limits)) => Ok(Some(limits)),
            Some(Err(differ)) => Err(Failure::Usage(differ.to_string())),
        }
    }

    /// Makes partitions ahead and drops those that are too old from time to time, in the background, and stores the events
    /// that were set aside once their month has a partition. Months that come sooner are made when their first event
    /// does. Readiness names the months whose partition cannot be made; the others are not affected.
    pub fn keep_partitions(&self, postgres: &Postgres, plan: PartitionPlan, limits: EventLimits) {
        self.readiness.expect("partitions", Need::Optional);
        self.readiness.set("partitions", None);
        let (postgres, stop, readiness) = (postgres.clone(), self.shutdown.token(), self.readiness.clone());
        let waiting = Arc::new(AtomicU64::new(0));
        self.metrics.sample_set_aside(waiting.clone());
        self.shutdown.spawn("partitions", async move {
            let partitions = postgres.partitions();
            let (mut not_made, mut due) = (Vec::new(), tokio::time::Instant::now());
            while !stop.is_cancelled() {
                netagg_core::crash::in_task("partitions");
                if due <= tokio::time::Instant::now() {
                    let pause = match plan.carry_out(&partitions, &postgres.retention(), limits).await {
                        Ok(months) => {
                            not_made = months;
                            if not_made.is_empty() { PARTITION_INTERVAL } else { PARTITION_RETRY }
                        }
                        // Another replica does it.
                        Err(DropError::Busy) => PARTITION_RETRY,
                        Err(DropError::Store(error)) if error.is_retryable() => {
                            // Readiness tells why.
                            tracing::debug!(%error, "partitions are made and dropped later");
                            PARTITION_RETRY
                        }
                        Err(error) => {
                            tracing::error!(%error, "partitions cannot be made or dropped");
                            PARTITION_INTERVAL
                        }
                    };
                    due = tokio::time::Instant::now() + pause;
                }
                match partitions.store_set_aside().await {
                    Ok(SetAside { stored, waiting: months, .. }) => {
                        if stored > 0 {
                            tracing::info!(events = stored, "events that were set aside are stored");
                        }
                        waiting.store(months.iter().map(|month| month.events).sum(), Relaxed);
                        readiness.set("partitions", partition_problem(&not_made, &months));
                    }
                    Err(error) => tracing::debug!(%error, "events that are set aside are stored later"),
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(PARTITION_RETRY) => {}
                }
            }
        });
    }

    /// Records in the background up to which instant `consumer` has processed its topic.
    pub fn track_completeness(&self, postgres: &Postgres, topics: KafkaTopics, consumer: TrackedConsumer) {
        let tracker = CompletenessTracker::new(Arc::new(topics), Arc::new(postgres.clone()), consumer);
        self.shutdown.spawn("completeness", tracker.run(self.shutdown.token()));
    }
}

/// Fails while the consumer waits for `dependency`.
fn comes_on(work: &OnceLock<Arc<ConsumerStats>>, dependency: &str) -> Result<(), String> {
    work.get().and_then(|stats| stats.waiting_for(dependency)).map_or(Ok(()), Err)
}

/// Which partitions there are to be.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct PartitionPlan {
    /// How many months after this one have their partition ready.
    pub ahead: u32,
    /// How long events are kept: a month goes when all of it is older. `None` keeps all.
    pub retention: Option<Duration>,
}

impl PartitionPlan {
    /// Returns the months whose partition cannot be made, and why.
    async fn carry_out(
        self,
        partitions: &Partitions,
        retention: &Retention,
        limits: EventLimits,
    ) -> Result<Vec<(Month, String)>, DropError> {
        let now = SystemClock.now();
        let ahead = partitions.ensure_ahead(now, self.ahead).await?;
        if let Some(oldest) = self.retention {
            retention.drop_before(now.saturating_sub(oldest).day().month(), limits, now).await?;
        }
        Ok(ahead.not_made)
    }
}

/// Which months have no partition, and how many events wait for that.
fn partition_problem(not_made: &[(Month, String)], waiting: &[WaitingMonth]) -> Option<String> {
    let mut problems: BTreeMap<Month, String> =
        not_made.iter().map(|(month, reason)| (*month, reason.clone())).collect();
    for WaitingMonth { month, events, reason, .. } in waiting {
        let reason =
            reason.clone().or_else(|| problems.remove(month)).unwrap_or_else(|| "they are being stored".to_owned());
        problems.insert(*month, format!("{events} events of {month} are set aside: {reason}"));
    }
    let problems: Vec<_> = problems.into_values().collect();
    (!problems.is_empty()).then(|| problems.join("; "))
}

/// Tells what a consumer has done.
pub fn log_stopped(stats: &ConsumerStats) {
    let StatsSnapshot { consumed, new, duplicates, conflicts, invalid, batches } = stats.snapshot();
    tracing::info!(consumed, new, duplicates, conflicts, invalid, batches, "stopped");
}

/// A wrong Kafka configuration, found only when a client is made of it.
impl From<netagg_kafka::ConfigError> for Failure {
    fn from(error: netagg_kafka::ConfigError) -> Self {
        Self::Usage(format!("KAFKA_*: {error}"))
    }
}

/// As the Kafka one.
impl From<netagg_redis::ConfigError> for Failure {
    fn from(error: netagg_redis::ConfigError) -> Self {
        Self::Usage(format!("REDIS_*: {error}"))
    }
}

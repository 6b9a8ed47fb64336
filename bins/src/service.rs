//! What the services do at their start and beside their job.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{ConsumerStats, Error, EventLimits, StatsSnapshot};
use netagg_kafka::KafkaHealth;
use netagg_pg::{EventLimitsError, Postgres};
use netagg_redis::RedisCache;
use tokio_util::sync::CancellationToken;

use crate::ops::{self, Need, Readiness};
use crate::{Failure, Shutdown};

/// How often it is made sure that there are partitions ahead.
const PARTITION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How long a service waits for Redis at its start; it goes on without it.
const FIRST_CONNECTION: Duration = Duration::from_millis(500);

/// A service between its start and its stop.
#[derive(Debug)]
pub struct Service {
    readiness: Arc<Readiness>,
    shutdown: Shutdown,
}

impl Service {
    /// Opens the ops port.
    ///
    /// # Errors
    /// When its address cannot be bound.
    pub async fn start(ops: SocketAddr, shutdown: Shutdown) -> Result<Self, Failure> {
        let readiness = Arc::new(Readiness::default());
        // The port outlives the stop: a service that drains is alive.
        ops::serve(ops, readiness.clone(), CancellationToken::new()).await?;
        Ok(Self { readiness, shutdown })
    }

    /// The token that is cancelled when it is time to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.shutdown.token()
    }

    /// Watches the database and its schema.
    pub fn watch_postgres(&self, name: &'static str, postgres: &Postgres) {
        let postgres = postgres.clone();
        self.readiness.watch(name, Need::Required, self.shutdown.token(), move || {
            let postgres = postgres.clone();
            async move { postgres.check_schema().await }
        });
    }

    /// Watches the consumer.
    pub fn watch_kafka(&self, health: KafkaHealth) {
        self.readiness.watch("kafka", Need::Required, self.shutdown.token(), move || {
            let problem = health.problem();
            async move { problem.map_or(Ok(()), |problem| Err(problem.reason)) }
        });
    }

    /// Watches the cache, and gives it a moment for its first connection.
    pub async fn watch_redis(&self, cache: &Arc<RedisCache>) {
        let connected = async {
            while cache.ping().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(FIRST_CONNECTION, connected).await;
        let cache = cache.clone();
        self.readiness.watch("redis", Need::Optional, self.shutdown.token(), move || {
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

    /// Makes partitions ahead, now and then, in the background. Months that come sooner are made when their first event
    /// does.
    pub fn keep_partitions_ahead(&self, postgres: &Postgres, months: u32) {
        let (partitions, stop) = (postgres.partitions(), self.shutdown.token());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let pause = match partitions.ensure_ahead(SystemClock.now(), months).await {
                    Ok(_) => PARTITION_INTERVAL,
                    // Readiness tells why.
                    Err(error) => {
                        tracing::debug!(%error, "partitions are made later");
                        Duration::from_secs(5)
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }
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

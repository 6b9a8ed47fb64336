//! The parts of a service besides its job: the start, the readiness checks, and background tasks.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use netagg_api::{ApiLimits, OpsMetrics, Protection, overview_page, serve_unready};
use netagg_core::usage::CursorSecret;
use netagg_core::{
    CompletenessTracker, ConsumerStats, Criticality, EventLimits, HumanDuration, ProcessingMode, Readiness,
    RetryPolicy, StatsSnapshot, TrackedConsumer,
};
use netagg_kafka::{KafkaHealth, KafkaMetrics, KafkaTopics};
use netagg_pg::{EventLimitsError, ModeError, PartitionMaintenance, PartitionPlan, PgConfig, Postgres, RecordedMode};
use netagg_redis::RedisCache;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::ops::{self, OpsConfig};
use crate::process::Shutdown;

/// How long a service waits for Redis at its start. After this time it starts without Redis.
const FIRST_CONNECTION: Duration = Duration::from_millis(500);

/// The duration of a start when all servers are available. Requests that arrive in this time wait for their response.
const USUAL_START: Duration = Duration::from_secs(1);

/// A service between its start and its stop.
#[derive(Debug)]
pub struct Runtime {
    readiness: Arc<Readiness>,
    metrics: Arc<OpsMetrics>,
    shutdown: Shutdown,
}

impl Runtime {
    /// Opens the ops port.
    ///
    /// # Errors
    /// When its address cannot be bound.
    pub async fn start(ops: OpsConfig, shutdown: Shutdown) -> Result<Self, Failure> {
        let (readiness, metrics) = (Arc::new(readiness(&shutdown)), Arc::new(ops::install_metrics()?));
        let sampled = readiness.clone();
        metrics.sample(move || sampled.record_metrics());
        // The port stays open during the stop, because a service that drains is alive.
        ops::serve(ops, readiness.clone(), metrics.clone(), &shutdown).await?;
        Ok(Self { readiness, metrics, shutdown })
    }

    /// The token that is cancelled when the service must stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.shutdown.token()
    }

    /// Watches the database and its schema. With the counters of a consumer, the check also fails while the consumer waits
    /// for the database. So a database that responds but rejects writes makes the service unready.
    pub fn watch_postgres(&self, postgres: &Postgres, stats: Option<Arc<ConsumerStats>>) {
        let sampled = postgres.clone();
        self.metrics.sample(move || sampled.record_metrics());
        let postgres = postgres.clone();
        let watch = self.readiness.watch("postgres", Criticality::Required, async move || {
            postgres.check_schema().await.map_err(|error| error.to_string())?;
            stats.as_ref().map_or(Ok(()), |stats| stats.check_not_blocked("postgres"))
        });
        self.shutdown.spawn("postgres", watch);
    }

    /// Watches whether the API can check credentials, if it requires them.
    pub fn watch_protection(&self, protection: &Protection) {
        if protection.is_open() {
            return;
        }
        let protection = protection.clone();
        let watch = self.readiness.watch("credentials", Criticality::Required, async move || protection.check());
        self.shutdown.spawn("credentials", watch);
    }

    /// Watches the source of a consumer with these counters.
    pub fn watch_kafka(&self, health: KafkaHealth, stats: Arc<ConsumerStats>) {
        let sampled = KafkaMetrics::new(health.clone());
        self.metrics.sample(move || sampled.record());
        let watch = self.readiness.watch("kafka", Criticality::Required, async move || {
            health.check().and_then(|()| stats.check_not_blocked("kafka"))
        });
        self.shutdown.spawn("kafka", watch);
    }

    /// Watches the cache, and waits a short time for its first connection.
    pub async fn watch_redis(&self, cache: &Arc<RedisCache>) {
        // No request goes to Redis during this wait, so a server that connects a little later causes no failed request.
        let _ = tokio::time::timeout(FIRST_CONNECTION, cache.connected()).await;
        let cache = cache.clone();
        let watch = self.readiness.watch("redis", Criticality::Optional, async move || cache.ping().await);
        self.shutdown.spawn("redis", watch);
    }

    /// The secret of cursors: `configured`, else the secret of the database, as soon as the database is available. During the
    /// wait, the port of `http` reports that the API is alive but not ready, so a load balancer does not take the API for
    /// dead. If `has_page`, the port also serves the page for browsers. Returns `None` if the program stops.
    ///
    /// # Errors
    /// When the database rejects the query, or the port cannot be shared.
    pub async fn cursor_secret(
        &self,
        configured: Option<CursorSecret>,
        postgres: PgConfig,
        http: &TcpListener,
        protection: &Protection,
        has_page: bool,
    ) -> Result<Option<CursorSecret>, Failure> {
        if configured.is_some() {
            return Ok(configured);
        }
        let settings = Postgres::new(postgres).settings();
        let waiting = self.stop_token().child_token();
        let pages = if has_page { overview_page("") } else { Router::new() };
        let secret = async {
            let secret = RetryPolicy::default().retry(&waiting, async || settings.cursor_secret().await).await;
            waiting.cancel();
            secret
        };
        let (secret, unready) = tokio::join!(secret, answer_unready(http, protection, pages, &waiting));
        unready?;
        Ok(secret?)
    }

    /// Waits for the database, and agrees with the other services on the limits of events and on the mode. Returns `None` if
    /// the program stops.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the database has other limits or another mode.
    pub async fn agree(
        &self,
        postgres: &Postgres,
        limits: EventLimits,
        mode: ProcessingMode,
    ) -> Result<Option<EventLimits>, Failure> {
        let Some(limits) = postgres.agree_on_limits(limits, &self.stop_token()).await? else { return Ok(None) };
        let agreed = postgres.agree_on_mode(mode, &self.stop_token()).await?;
        Ok(agreed.map(|()| limits))
    }

    /// Keeps the partitions of `events_raw` as `plan` says, in the background. Readiness names the months without a
    /// partition; other months are not affected.
    pub fn keep_partitions(&self, postgres: &Postgres, plan: PartitionPlan, limits: EventLimits) {
        let maintenance = PartitionMaintenance::new(postgres, plan, limits);
        self.shutdown.spawn("partitions", maintenance.run(self.readiness.clone(), self.shutdown.token()));
    }

    /// Records in the background up to which instant `consumer` has processed its topic.
    pub fn track_completeness(&self, postgres: &Postgres, topics: KafkaTopics, consumer: TrackedConsumer) {
        let tracker = CompletenessTracker::new(Arc::new(topics), Arc::new(postgres.clone()), consumer);
        self.shutdown.spawn("completeness", tracker.run(self.shutdown.token()));
    }
}

/// If the start takes longer than usual, reports on the port of `http` that the API is not ready, until `waiting` is
/// cancelled.
async fn answer_unready(
    http: &TcpListener,
    protection: &Protection,
    pages: Router,
    waiting: &CancellationToken,
) -> io::Result<()> {
    if waiting.run_until_cancelled(tokio::time::sleep(USUAL_START)).await.is_none() {
        return Ok(());
    }
    // Both servers use the same socket, so no connection is refused when the API takes over.
    let socket = http.as_fd().try_clone_to_owned()?;
    let listener = TcpListener::from_std(socket.into())?;
    serve_unready(listener, protection.clone(), ApiLimits::default(), pages, waiting.clone()).await;
    Ok(())
}

/// The readiness of a service that stops with `shutdown`. If a task has panicked, it is the reason of the stop.
fn readiness(shutdown: &Shutdown) -> Readiness {
    let stopped = shutdown.clone();
    Readiness::new(shutdown.token()).with_stop_reason(move || stopped.check().err().map(|failure| failure.to_string()))
}

/// Logs the counters of a consumer at its stop.
pub fn log_stopped(stats: &ConsumerStats) {
    let StatsSnapshot { consumed, new, duplicates, conflicts, invalid, batches } = stats.snapshot();
    tracing::info!(consumed, new, duplicates, conflicts, invalid, batches, "stopped");
}

/// A wrong Kafka configuration. It is found only when a client is created.
impl From<netagg_kafka::ConfigError> for Failure {
    fn from(error: netagg_kafka::ConfigError) -> Self {
        Self::Usage(format!("KAFKA_*: {error}"))
    }
}

/// Event limits that differ from the recorded limits are a wrong configuration.
impl From<EventLimitsError> for Failure {
    fn from(error: EventLimitsError) -> Self {
        match error {
            EventLimitsError::Store(error) => error.into(),
            EventLimitsError::Differ { recorded, configured } => Self::Usage(format!(
                "the database has EVENT_MAX_AGE={} and EVENT_MAX_FUTURE={}, but this program is configured with {} and {}: \
                 configure the values of the database, or change them with `netagg limits set`",
                HumanDuration(recorded.max_age),
                HumanDuration(recorded.max_future),
                HumanDuration(configured.max_age),
                HumanDuration(configured.max_future)
            )),
            error => Self::Usage(error.to_string()),
        }
    }
}

/// A mode that differs from the recorded mode is a wrong configuration.
impl From<ModeError> for Failure {
    fn from(error: ModeError) -> Self {
        match error {
            ModeError::Store(error) => error.into(),
            ModeError::Differs { recorded: RecordedMode::SwitchingTo(mode), .. } => {
                Self::Usage(format!("{error}: finish it with `netagg mode set {mode}`"))
            }
            ModeError::Differs { configured, .. } => Self::Usage(format!(
                "{error}: start the ingestor with the INGESTOR_MODE of the database (an aggregator runs only in the separate \
                 mode), or change the mode of the database with `netagg mode set {configured}`"
            )),
            error => Self::Usage(error.to_string()),
        }
    }
}

/// A wrong Redis configuration. It is found only when a client is created.
impl From<netagg_redis::ConfigError> for Failure {
    fn from(error: netagg_redis::ConfigError) -> Self {
        Self::Usage(format!("REDIS_*: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn an_error_about_limits_names_the_recorded_and_the_configured_values() {
        let recorded = EventLimits::default();
        let configured = EventLimits { max_age: Duration::from_millis(1_500), ..recorded };
        let failure = Failure::from(EventLimitsError::Differ { recorded, configured });
        assert_eq!(
            failure.to_string(),
            "the database has EVENT_MAX_AGE=1825d and EVENT_MAX_FUTURE=1d, but this program is configured with 1500ms and \
             1d: configure the values of the database, or change them with `netagg limits set`"
        );
        assert!(matches!(failure, Failure::Usage(_)));
    }

    #[tokio::test]
    async fn a_watcher_that_panics_leaves_the_service_unready_and_stops_it() {
        let shutdown = Shutdown::default();
        let readiness = Arc::new(readiness(&shutdown));
        let checks = AtomicUsize::new(0);
        let watch = readiness.watch("postgres", Criticality::Required, async move || {
            if checks.fetch_add(1, Relaxed) == 0 { Ok::<_, String>(()) } else { panic!("the second check") }
        });
        shutdown.spawn("postgres", watch);
        shutdown.token().cancelled().await;
        let report = readiness.report();
        assert!(!report.ready, "{report:?}");
        for name in ["postgres", "service"] {
            assert!(report.dependencies[name].contains("panicked"), "{report:?}");
        }
        assert!(shutdown.check().is_err_and(|failure| failure.to_string().contains("postgres")));
    }
}

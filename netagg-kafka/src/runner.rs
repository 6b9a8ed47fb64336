//! Runs a consumer over Kafka, with its readiness, metrics and completeness.

use std::sync::Arc;
use std::time::Duration;

use netagg_core::ports::CompletenessStore;
use netagg_core::{CompletenessTracker, Criticality, Error, EventConsumer, Readiness, TrackedConsumer};
use tokio_util::sync::CancellationToken;

use crate::error::KAFKA;
use crate::metrics::KafkaMetrics;
use crate::topics::KafkaTopics;
use crate::{ConfigError, KafkaConfig, KafkaSource};

/// How often the lag is recorded.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// The name of the database in errors. A consumer may wait for the database.
const DATABASE: &str = "postgres";

/// Runs ingestors and aggregators over a topic, each with its readiness, its lag as metrics, and its completeness.
#[derive(Debug)]
pub struct KafkaRunner {
    config: KafkaConfig,
    topic: String,
    topics: Arc<KafkaTopics>,
    readiness: Arc<Readiness>,
    completeness: Arc<dyn CompletenessStore>,
}

impl KafkaRunner {
    /// A runner over `topic`. It connects by itself.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(
        config: &KafkaConfig,
        topic: &str,
        readiness: Arc<Readiness>,
        completeness: Arc<dyn CompletenessStore>,
    ) -> Result<Self, ConfigError> {
        let topics = Arc::new(KafkaTopics::new(config)?);
        Ok(Self { config: config.clone(), topic: topic.to_owned(), topics, readiness, completeness })
    }

    /// Runs `consumer` as a member of `group` until `shutdown`. Meanwhile:
    ///
    /// - the readiness has a required dependency with the name of the service, which fails while the consumer cannot read or
    ///   waits for its database;
    /// - the lag is recorded every 5 s, as [`KafkaMetrics`] does, with the label `service`;
    /// - a [`CompletenessTracker`] records up to which instant the topic is processed.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration. Also the errors of the consumer.
    pub async fn run(
        &self,
        consumer: impl EventConsumer,
        group: &str,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let source = KafkaSource::new(&self.config, group, &self.topic);
        let mut source = source.map_err(|error| Error::internal(KAFKA, error))?;
        let (service, health, stats) = (consumer.service(), source.health(), consumer.stats());
        let ended = shutdown.child_token();
        let lag = KafkaMetrics::new(health.clone()).with_service_label(service);
        let check = async move || {
            let blocked = [KAFKA, DATABASE].into_iter().try_for_each(|dependency| stats.check_not_blocked(dependency));
            health.check().and(blocked)
        };
        let tracked = TrackedConsumer::new(service, group, &self.topic);
        let tracker = CompletenessTracker::new(self.topics.clone(), self.completeness.clone(), tracked);
        let beside = async {
            tokio::join!(
                lag.keep_recording(METRICS_INTERVAL, ended.clone()),
                self.readiness.watch(service, Criticality::Required, check),
                tracker.run(ended.clone()),
            )
        };
        let work = async {
            let outcome = consumer.run(&mut source, shutdown).await;
            ended.cancel();
            outcome
        };
        tokio::join!(work, ended.run_until_cancelled(beside)).0
    }
}

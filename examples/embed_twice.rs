//! Two independent installations in one process. Each has its own topic, database, cache and port. The libraries set no global
//! state of the process, so the application decides for both installations.
//!
//! ```sh
//! export KAFKA_BROKERS=localhost:9092
//! export FIRST_DATABASE_URL=postgres://app_user:app_password@localhost/first FIRST_KAFKA_TOPIC=events.first
//! export FIRST_REDIS_URL=redis://localhost/0 FIRST_HTTP_ADDRESS=127.0.0.1:8000
//! export SECOND_DATABASE_URL=postgres://app_user:app_password@localhost/second SECOND_KAFKA_TOPIC=events.second
//! export SECOND_REDIS_URL=redis://localhost/1 SECOND_HTTP_ADDRESS=127.0.0.1:8001
//! cargo run -p netagg-examples --features services --example embed_twice
//! ```

use std::{env, sync::Arc};

use futures::TryFutureExt;
use netagg_api::Server;
use netagg_core::usage::{UsageConfig, UsageService};
use netagg_core::{Aggregator, BoxError, EventLimits, Ingestor, Readiness, RetryPolicy};
use netagg_kafka::{KafkaConfig, KafkaDeadLetters, KafkaRunner, KafkaTopics, TopicSpec};
use netagg_pg::{PgAggregateStore, PgConfig, PgEventStore, Postgres};
use netagg_redis::{RedisCache, RedisConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), BoxError> {
    // The application also owns the async runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (stop, mut terminate) = (CancellationToken::new(), signal(SignalKind::terminate())?);
        let both = async {
            let ended = tokio::join!(installation("FIRST", &stop), installation("SECOND", &stop));
            ended.0.and(ended.1)
        };
        let ended = async {
            terminate.recv().await;
            // The libraries have set no global state. The application can still set its own TLS provider, log subscriber and
            // recorder.
            assert!(rustls::crypto::CryptoProvider::get_default().is_none(), "a library has installed a TLS provider");
            assert!(!tracing::dispatcher::has_been_set(), "a library has installed a log subscriber");
            metrics::set_global_recorder(metrics::NoopRecorder)?;
            stop.cancel();
            Ok(())
        };
        tokio::try_join!(both, ended).map(drop)
    })
}

/// Runs an ingestor, an aggregator and an API until `stop`, with the settings of `name`.
async fn installation(name: &str, stop: &CancellationToken) -> Result<(), BoxError> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("{name} is not set"));
    let own = |variable_name: &str| variable(&format!("{name}_{variable_name}"));
    let (topic, kafka) = (own("KAFKA_TOPIC")?, KafkaConfig::new(variable("KAFKA_BROKERS")?));
    let (topics, dlq, retry) = (KafkaTopics::new(&kafka)?, format!("{topic}.dlq"), RetryPolicy::default());
    let cache = Arc::new(RedisCache::new(RedisConfig::from_url(&own("REDIS_URL")?)?)?);
    let postgres = Postgres::new(PgConfig::new(own("DATABASE_URL")?.parse()?));
    let events = Arc::new(PgEventStore::new(postgres.clone()));
    let totals = Arc::new(PgAggregateStore::new(postgres.clone()));

    retry.retry(stop, async || postgres.migrations().up().await).await?;
    retry.retry(stop, async || topics.create(&TopicSpec::events(&topic)).await).await?;
    retry.retry(stop, async || topics.create(&TopicSpec::dead_letters(&dlq)).await).await?;
    let Some(limits) = postgres.agree_on_limits(EventLimits::default(), stop).await? else { return Ok(()) };

    let readiness = Arc::new(Readiness::new(stop.clone()));
    let runner = KafkaRunner::new(&kafka, &topic, readiness, Arc::new(postgres.clone()))?;
    let ingestor = Ingestor::new(events.clone(), Arc::new(KafkaDeadLetters::new(&kafka, &dlq)?)).with_limits(limits);
    let aggregator = Aggregator::new(totals.clone()).with_cache(cache.clone()).with_limits(limits);
    let service = UsageService::new(events, totals, UsageConfig::default()).with_cache(cache);
    let listener = TcpListener::bind(own("HTTP_ADDRESS")?).await?;
    let http = async {
        Server::new(Arc::new(service)).serve_http(listener, stop.clone()).await;
        Ok(())
    };
    let (ingestors, aggregators) = (format!("{topic}-ingestors"), format!("{topic}-aggregators"));
    tokio::try_join!(
        runner.run(ingestor, &ingestors, stop.clone()).err_into::<BoxError>(),
        runner.run(aggregator, &aggregators, stop.clone()).err_into(),
        http,
    )?;
    Ok(())
}

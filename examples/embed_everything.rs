//! Ingestor, aggregator and API in one process with Kafka, PostgreSQL and Redis. It uses only the library crates, and covers
//! schema and topics, partitions and retention, agreement on limits, completeness, readiness and metrics. It stops on SIGTERM
//! or Ctrl-C.
//!
//! ```sh
//! export DATABASE_URL=postgres://app_user:app_password@localhost/network_events
//! export KAFKA_BROKERS=localhost:9092 KAFKA_TOPIC=events.telecom REDIS_URL=redis://localhost
//! export HTTP_ADDRESS=127.0.0.1:8000 GRPC_ADDRESS=127.0.0.1:9090 OPS_ADDRESS=127.0.0.1:6060
//! cargo run -p netagg-examples --features services --example embed_everything
//! ```

use std::{env, sync::Arc};

use futures::{FutureExt, TryFutureExt};
use metrics_exporter_prometheus::PrometheusBuilder;
use netagg_api::{ApiLimits, Server, ops_router, serve_router};
use netagg_core::usage::{UsageConfig, UsageService};
use netagg_core::{Aggregator, BoxError, Criticality, EventLimits, Ingestor, Readiness, RetryPolicy};
use netagg_kafka::{KafkaConfig, KafkaDeadLetters, KafkaRunner, KafkaTopics, TopicSpec};
use netagg_pg::{PartitionMaintenance, PartitionPlan, PgConfig, Postgres};
use netagg_pg::{PgAggregateStore, PgEventStore, PgTotalsRepair};
use netagg_redis::{RedisCache, RedisConfig};
use tokio::{net::TcpListener, signal::ctrl_c, signal::unix};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The application owns the process: settings, metrics recorder, log and shutdown.
    let variable = |name: &str| env::var(name).map_err(|_| format!("{name} is not set"));
    let listen = async |name: &str| Ok::<_, BoxError>(TcpListener::bind(variable(name)?).await?);
    let recorder = PrometheusBuilder::new().set_buckets(netagg_core::BATCH_SECONDS_BUCKETS)?.install_recorder()?;
    netagg_core::describe_metrics();
    netagg_kafka::describe_metrics();
    netagg_pg::describe_metrics();
    netagg_api::describe_metrics();
    netagg_api::register_metrics();
    let (stop, mut terminate) = (CancellationToken::new(), unix::signal(unix::SignalKind::terminate())?);
    let ended = async { tokio::select!(_ = terminate.recv() => (), _ = ctrl_c() => (), () = stop.cancelled() => ()) };

    // The clients connect when they need to. So no dependency has to be available yet.
    let (topic, kafka) = (variable("KAFKA_TOPIC")?, KafkaConfig::new(variable("KAFKA_BROKERS")?));
    let (topics, dlq, retry) = (KafkaTopics::new(&kafka)?, format!("{topic}.dlq"), RetryPolicy::default());
    let cache = Arc::new(RedisCache::new(RedisConfig::from_url(&variable("REDIS_URL")?)?)?);
    let postgres = Postgres::new(PgConfig::new(variable("DATABASE_URL")?.parse()?));
    let events = Arc::new(PgEventStore::new(postgres.clone()));
    let totals = Arc::new(PgAggregateStore::new(postgres.clone()));
    let repair = Arc::new(PgTotalsRepair::new(postgres.clone()));
    let ingestor = Ingestor::new(events.clone(), Arc::new(KafkaDeadLetters::new(&kafka, &dlq)?)).with_service_label();
    let aggregator = Aggregator::new(totals.clone()).with_service_label().with_cache(cache.clone()).with_repair(repair);

    // From the start, readiness shows operators which dependency is unavailable, and why.
    let readiness = Arc::new(Readiness::new(stop.clone()));
    let database = readiness.watch("postgres", Criticality::Required, async || postgres.check_schema().await);
    let redis = readiness.watch("redis", Criticality::Optional, async || cache.ping().await);
    let (now, pool) = (readiness.clone(), postgres.clone());
    let routes =
        ops_router(readiness.clone(), move || (now.record_metrics(), pool.record_metrics(), recorder.render()).2);
    let ops = serve_router(listen("OPS_ADDRESS").await?, routes, ApiLimits::default(), stop.clone());

    let work = async {
        // Creates the schema and the topics, retrying until each step succeeds, and waits until all services use the same
        // limits.
        retry.retry(&stop, async || postgres.migrations().up().await).await?;
        retry.retry(&stop, async || topics.create(&TopicSpec::events(&topic)).await).await?;
        retry.retry(&stop, async || topics.create(&TopicSpec::dead_letters(&dlq)).await).await?;
        let limits = postgres.agree_on_limits(EventLimits::default(), &stop).await?;
        let secret = retry.retry(&stop, async || postgres.settings().cursor_secret().await).await?;
        let (Some(limits), Some(cursor_secret)) = (limits, secret) else { return Ok(()) };

        // The runner adds readiness, lag and completeness to each consumer.
        let runner = KafkaRunner::new(&kafka, &topic, readiness.clone(), Arc::new(postgres.clone()))?;
        let (config, kept) = (UsageConfig::new(cursor_secret), Some(2 * limits.max_age));
        let partitions = PartitionMaintenance::new(&postgres, PartitionPlan::default().with_retention(kept), limits);
        let api = Server::new(Arc::new(UsageService::new(events, totals, config).with_cache(cache.clone())));
        let http = api.clone().serve_http(listen("HTTP_ADDRESS").await?, stop.clone());
        let grpc = api.serve_grpc(listen("GRPC_ADDRESS").await?, stop.clone()).err_into();
        let beside = async { Ok(tokio::join!(http, partitions.run(readiness.clone(), stop.clone()))) };
        let ingest = runner.run(ingestor.with_limits(limits), "ingestor-group", stop.clone()).err_into::<BoxError>();
        let aggregate = runner.run(aggregator.with_limits(limits), "aggregator-group", stop.clone()).err_into();
        tokio::try_join!(ingest, aggregate, grpc, beside).map(drop)
    };
    // After a signal, the services finish their batches. After a failure, Kafka delivers a batch again, and each event still
    // counts once.
    tokio::join!(work.inspect(|_| stop.cancel()), ops, database, redis, ended.map(|()| stop.cancel())).0
}

//! Stores each event of the topic once in PostgreSQL, and sends invalid messages to the dead-letter topic. In the combined
//! mode it also counts the events.

use std::process::ExitCode;
use std::sync::Arc;

use netagg::config::{self, Groups, Kafka};
use netagg::ops::OpsConfig;
use netagg::process::{LogDefaults, Shutdown, Variables};
use netagg::reserved_descriptors;
use netagg::runtime::{self, Runtime};
use netagg::{Failure, program};
use netagg_core::{ConsumerConfig, EventLimits, Ingestor, OtelPropagator, ProcessingMode, TrackedConsumer};
use netagg_kafka::{KafkaDeadLetters, KafkaSource, KafkaTopics};
use netagg_pg::{PartitionPlan, PgCombinedStore, PgConfig, PgEventStore, PgTotalsRepair, Postgres};
use netagg_redis::{RedisCache, RedisConfig};
use tikv_jemallocator::Jemalloc;

/// The allocator that can take heap profiles.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

struct Config {
    mode: ProcessingMode,
    postgres: PgConfig,
    /// The cache of totals, for an ingestor that counts.
    redis: Option<RedisConfig>,
    kafka: Kafka,
    group: String,
    consumer: ConsumerConfig,
    limits: EventLimits,
    partitions: PartitionPlan,
    ops: OpsConfig,
}

fn configure(variables: &mut Variables) -> Config {
    let mode = config::mode(variables);
    let counts = mode == ProcessingMode::Combined;
    let kafka = Kafka::read(variables);
    let group = Groups::read(variables).ingestor;
    let consumer = config::consumer(variables, "INGESTOR");
    // A connection for each batch in flight, and a few for partitions, probes, settings and repairs.
    let connections = consumer.batches_in_flight as u32 + 4;
    let limits = config::event_limits(variables);
    Config {
        mode,
        kafka,
        group,
        consumer,
        redis: Some(variables.unless(!counts, config::redis)).filter(|_| counts),
        postgres: config::postgres(variables, connections, "netagg-ingestor"),
        limits,
        partitions: config::partition_plan(variables, limits),
        ops: config::ops(variables, "PPROF_PORT_INGESTOR", 6060),
    }
}

async fn ingest(config: Config, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    reserved_descriptors::reserve_for_consumer(&config.postgres, config.redis.as_ref())?;
    // This finds a wrong configuration before the program waits for any server.
    config.kafka.client.check_consumer(&config.group)?;
    let topics = KafkaTopics::new(&config.kafka.client)?;
    let runtime = Runtime::start(config.ops, shutdown).await?;
    let postgres = Postgres::new(config.postgres);
    let dead_letters = Arc::new(KafkaDeadLetters::new(&config.kafka.client, &config.kafka.dlq_topic)?);
    let cache = config.redis.map(RedisCache::new).transpose()?.map(Arc::new);
    let ingestor = match &cache {
        None => Ingestor::new(Arc::new(PgEventStore::new(postgres.clone())), dead_letters),
        Some(cache) => Ingestor::combined(Arc::new(PgCombinedStore::new(postgres.clone())), dead_letters)
            .with_cache(cache.clone())
            .with_repair(Arc::new(PgTotalsRepair::new(postgres.clone()))),
    }
    .with_config(config.consumer)
    .with_trace_propagator(Arc::new(OtelPropagator));
    ingestor.register_metrics();
    let stats = ingestor.stats();
    runtime.watch_postgres(&postgres, Some(stats.clone()));
    if let Some(cache) = &cache {
        runtime.watch_redis(cache).await;
    }
    let Some(limits) = runtime.agree(&postgres, config.limits, config.mode).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    runtime.keep_partitions(&postgres, config.partitions, limits);
    let mut source = KafkaSource::new(&config.kafka.client, &config.group, &config.kafka.topic)?;
    runtime.watch_kafka(source.health(), stats.clone());
    let consumer = TrackedConsumer::new(PgEventStore::SERVICE, &config.group, &config.kafka.topic);
    runtime.track_completeness(&postgres, topics, consumer);
    ingestor.with_limits(limits).run(&mut source, runtime.stop_token()).await?;
    runtime::log_stopped(&stats);
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    const ABOUT: &str = "Stores each event of the topic once in PostgreSQL. Invalid messages go to the dead-letter topic. \
                         With INGESTOR_MODE=combined it also counts the events, in the same transactions.";
    program("ingestor", ABOUT, LogDefaults::SERVICE, configure).run(ingest)
}

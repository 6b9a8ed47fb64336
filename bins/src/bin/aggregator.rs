//! Counts each event of the topic once in daily and monthly totals in PostgreSQL.

use std::process::ExitCode;
use std::sync::Arc;

use netagg::config::{self, Groups, Kafka};
use netagg::ops::OpsConfig;
use netagg::process::{LogDefaults, Shutdown, Variables};
use netagg::reserved_descriptors;
use netagg::runtime::{self, Runtime};
use netagg::{Failure, program};
use netagg_core::{Aggregator, ConsumerConfig, EventLimits, OtelPropagator, ProcessingMode, TrackedConsumer};
use netagg_kafka::{KafkaSource, KafkaTopics};
use netagg_pg::{PgAggregateStore, PgConfig, PgTotalsRepair, Postgres};
use netagg_redis::{RedisCache, RedisConfig};
use tikv_jemallocator::Jemalloc;

/// The allocator that can take heap profiles.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

struct Config {
    postgres: PgConfig,
    redis: RedisConfig,
    kafka: Kafka,
    group: String,
    consumer: ConsumerConfig,
    limits: EventLimits,
    ops: OpsConfig,
}

fn configure(variables: &mut Variables) -> Config {
    let kafka = Kafka::read(variables);
    let group = Groups::read(variables).aggregator;
    let consumer = config::consumer(variables, "AGGREGATOR");
    // A connection for each batch in flight, and a few for probes, settings and repairs.
    let connections = consumer.batches_in_flight as u32 + 4;
    Config {
        kafka,
        group,
        consumer,
        postgres: config::postgres(variables, connections, "netagg-aggregator"),
        redis: config::redis(variables),
        limits: config::event_limits(variables),
        ops: config::ops(variables, "PPROF_PORT_AGGREGATOR", 6061),
    }
}

async fn aggregate(config: Config, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    reserved_descriptors::reserve_for_consumer(&config.postgres, Some(&config.redis))?;
    // This finds a wrong configuration before the program waits for any server.
    config.kafka.client.check_consumer(&config.group)?;
    let topics = KafkaTopics::new(&config.kafka.client)?;
    let runtime = Runtime::start(config.ops, shutdown).await?;
    let postgres = Postgres::new(config.postgres);
    let cache = Arc::new(RedisCache::new(config.redis)?);
    let aggregator = Aggregator::new(Arc::new(PgAggregateStore::new(postgres.clone())))
        .with_cache(cache.clone())
        .with_repair(Arc::new(PgTotalsRepair::new(postgres.clone())))
        .with_config(config.consumer)
        .with_trace_propagator(Arc::new(OtelPropagator));
    aggregator.register_metrics();
    let stats = aggregator.stats();
    runtime.watch_postgres(&postgres, Some(stats.clone()));
    runtime.watch_redis(&cache).await;
    let Some(limits) = runtime.agree(&postgres, config.limits, ProcessingMode::Separate).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut source = KafkaSource::new(&config.kafka.client, &config.group, &config.kafka.topic)?;
    runtime.watch_kafka(source.health(), stats.clone());
    let consumer = TrackedConsumer::new(PgAggregateStore::SERVICE, &config.group, &config.kafka.topic);
    runtime.track_completeness(&postgres, topics, consumer);
    aggregator.with_limits(limits).run(&mut source, runtime.stop_token()).await?;
    runtime::log_stopped(&stats);
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    const ABOUT: &str = "Counts each event of the topic once in daily and monthly totals in PostgreSQL.";
    program("aggregator", ABOUT, LogDefaults::SERVICE, configure).run(aggregate)
}

//! Stores the events of the topic in PostgreSQL, each once, and sends invalid messages to the dead-letter topic.

use std::process::ExitCode;
use std::sync::Arc;

use netagg::config::{self, Groups, Kafka};
use netagg::descriptors;
use netagg::ops::{self, OpsConfig};
use netagg::process::descriptors::{OWN, set_aside};
use netagg::process::{LogDefaults, Shutdown, Variables};
use netagg::runtime::{self, Runtime};
use netagg::{Failure, program};
use netagg_core::{ConsumerConfig, EventLimits, Ingestor, TrackedConsumer};
use netagg_kafka::{KafkaDeadLetters, KafkaSource, KafkaTopics};
use netagg_pg::{PartitionPlan, PgConfig, PgEventStore, Postgres};
use tikv_jemallocator::Jemalloc;

/// Takes heap profiles.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

struct Config {
    postgres: PgConfig,
    kafka: Kafka,
    group: String,
    consumer: ConsumerConfig,
    limits: EventLimits,
    partitions: PartitionPlan,
    ops: OpsConfig,
}

fn configure(variables: &mut Variables) -> Config {
    let kafka = Kafka::read(variables);
    let group = Groups::read(variables).ingestor;
    let consumer = config::consumer(variables, "INGESTOR");
    // One for each batch in flight, and a few for partitions, probes and settings.
    let connections = consumer.batches_in_flight as u32 + 4;
    let limits = config::event_limits(variables);
    Config {
        kafka,
        group,
        consumer,
        postgres: config::postgres(variables, connections, "netagg-ingestor"),
        limits,
        partitions: config::partition_plan(variables, limits),
        ops: config::ops(variables, "PPROF_PORT_INGESTOR", 6060),
    }
}

async fn ingest(config: Config, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    let connections = descriptors::postgres(config.postgres.max_connections);
    set_aside(&[OWN, ops::DESCRIPTORS, connections, descriptors::KAFKA], 0)?;
    // A wrong configuration is found here, before anything is waited for.
    config.kafka.client.check_consumer(&config.group)?;
    let topics = KafkaTopics::new(&config.kafka.client)?;
    let runtime = Runtime::start(config.ops, shutdown).await?;
    let postgres = Postgres::new(config.postgres);
    let dead_letters = KafkaDeadLetters::new(&config.kafka.client, &config.kafka.dlq_topic)?;
    let ingestor = Ingestor::new(Arc::new(PgEventStore::new(postgres.clone())), Arc::new(dead_letters))
        .with_config(config.consumer);
    ingestor.register_metrics();
    let stats = ingestor.stats();
    runtime.watch_postgres(&postgres, Some(stats.clone()));
    let Some(limits) = postgres.agree_on_limits(config.limits, &runtime.stop_token()).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    runtime.keep_partitions(&postgres, config.partitions, limits);
    let mut source = KafkaSource::new(&config.kafka.client, &config.group, &config.kafka.topic)?;
    runtime.watch_kafka(source.health(), stats.clone());
    let consumer =
        TrackedConsumer { service: PgEventStore::SERVICE.to_owned(), group: config.group, topic: config.kafka.topic };
    runtime.track_completeness(&postgres, topics, consumer);
    ingestor.with_limits(limits).run(&mut source, runtime.stop_token()).await?;
    runtime::log_stopped(&stats);
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    const ABOUT: &str =
        "Stores the events of the topic in PostgreSQL, each once. Invalid messages go to the dead-letter topic.";
    program("ingestor", ABOUT, LogDefaults::SERVICE, configure).run(ingest)
}

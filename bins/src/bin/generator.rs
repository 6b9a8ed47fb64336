//! Sends realistic events to the topic and verifies that each event is stored once.

use std::process::ExitCode;
use std::sync::Arc;

use netagg::config::{self, Kafka};
use netagg::generator::{self, GeneratorConfig};
use netagg::process::{LogDefaults, Shutdown, Variables};
use netagg::{Failure, program};
use netagg_core::{OtelPropagator, TracedPublisher};
use netagg_kafka::KafkaPublisher;
use netagg_pg::{PgConfig, PgEventStore, Postgres};

struct Config {
    generator: GeneratorConfig,
    kafka: Kafka,
    postgres: PgConfig,
}

fn configure(variables: &mut Variables) -> Config {
    Config {
        generator: GeneratorConfig::read(variables),
        kafka: Kafka::read(variables),
        postgres: config::postgres(variables, 3, "netagg-generator"),
    }
}

async fn generate(config: Config, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    let publisher = Arc::new(KafkaPublisher::new(&config.kafka.client, &config.kafka.topic)?);
    let publisher = TracedPublisher::new(publisher, &config.kafka.topic, Arc::new(OtelPropagator));
    let store = Arc::new(PgEventStore::new(Postgres::new(config.postgres)));
    let report = generator::run(config.generator, Arc::new(publisher), store, &shutdown).await?;
    Ok(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn main() -> ExitCode {
    const ABOUT: &str = "Sends realistic events to the topic and verifies that each event is stored once in PostgreSQL. \
                Prints its figures every 5 s and at the end. The exit code is 1 if an event is missing or stored twice.";
    program("generator", ABOUT, LogDefaults::COMMAND, configure).run(generate)
}

//! The environment variables of all programs together, for the help and for warnings about misspelled variables.

use super::api_addresses::{ApiAddresses, has_page};
use super::cache::{Answers, redis};
use super::events::{consumer, event_limits, mode, partition_plan, partitions_ahead};
use super::kafka::{Groups, Kafka};
use super::ops_port::{api_ops, ops};
use super::postgres::{postgres, read_postgres};
use crate::generator::GeneratorConfig;
use crate::process::{LogDefaults, Variables};
use crate::protection::ProtectionConfig;
use crate::traces::TracesConfig;

/// Declares the variables of all commands, for the help.
pub(crate) fn declare_all_of_commands(variables: &mut Variables) {
    let addresses = ApiAddresses::read(variables);
    has_page(variables);
    ProtectionConfig::read(variables, &addresses);
    postgres(variables, 2, "netagg");
    redis(variables);
    Kafka::read(variables);
    Groups::read(variables);
    event_limits(variables);
    partitions_ahead(variables);
    TracesConfig::read(variables, "netagg");
}

/// Declares the variables of all programs.
pub(super) fn declare_all(variables: &mut Variables) {
    LogDefaults::SERVICE.describe(variables);
    TracesConfig::read(variables, "netagg-<program>");
    Kafka::read(variables);
    Groups::read(variables);
    let writing = postgres(variables, 1, "");
    read_postgres(variables, &writing);
    redis(variables);
    let limits = event_limits(variables);
    partition_plan(variables, limits);
    mode(variables);
    for (service, port) in [("INGESTOR", "PPROF_PORT_INGESTOR"), ("AGGREGATOR", "PPROF_PORT_AGGREGATOR")] {
        consumer(variables, service);
        ops(variables, port, 1);
    }
    let addresses = ApiAddresses::read(variables);
    has_page(variables);
    api_ops(variables, &addresses, 1);
    ProtectionConfig::read(variables, &addresses);
    Answers::read(variables);
    GeneratorConfig::read(variables);
}

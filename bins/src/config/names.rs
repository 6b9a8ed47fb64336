//! The names of netagg's variables, for warnings about misspelled variables. A misspelled variable has no effect, and its
//! operator does not notice this.

use crate::process::VariableNames;

use super::all::declare_all;

/// The variables of all programs, and other names for these variables.
pub const NAMES: VariableNames =
    VariableNames { declare_all, own_prefixes: &OWN_PREFIXES, synonyms: &SYNONYMS, overrides: &OVERRIDES };

/// Prefixes that only netagg uses.
const OWN_PREFIXES: [&str; 3] = ["INGESTOR_", "AGGREGATOR_", "GENERATOR_"];

/// Variables that another variable overrides: their prefix, and the other variable.
const OVERRIDES: [(&str, &str); 3] =
    [("POSTGRES_", "DATABASE_URL"), ("REDIS_", "REDIS_URL"), ("KAFKA_", "KAFKA_BROKERS")];

/// Names that other programs use for a setting, and netagg's name for this setting. Each name differs too much from netagg's
/// name to be found by its spelling.
const SYNONYMS: [(&str, &str); 34] = [
    ("API_ADDR", "API_BIND"),
    ("API_ADDRESS", "API_BIND"),
    ("API_PORT", "API_HTTP_PORT"),
    ("BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
    ("DATABASE_DSN", "DATABASE_URL"),
    ("DB_DSN", "DATABASE_URL"),
    ("DB_URI", "DATABASE_URL"),
    ("DB_URL", "DATABASE_URL"),
    ("GENERATOR_EPS", "GENERATOR_EVENTS_PER_SEC"),
    ("GENERATOR_RATE", "GENERATOR_EVENTS_PER_SEC"),
    ("GENERATOR_USERS", "GENERATOR_USER_COUNT"),
    ("GRPC_PORT", "API_GRPC_PORT"),
    ("HTTP_PORT", "API_HTTP_PORT"),
    ("KAFKA_ADDRESS", "KAFKA_BROKERS"),
    ("KAFKA_BOOTSTRAP", "KAFKA_BROKERS"),
    ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BROKERS"),
    ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
    ("KAFKA_HOSTS", "KAFKA_BROKERS"),
    ("KAFKA_SERVERS", "KAFKA_BROKERS"),
    ("KAFKA_URL", "KAFKA_BROKERS"),
    ("PG_URL", "DATABASE_URL"),
    ("POSTGRES_DATABASE", "POSTGRES_DB"),
    ("POSTGRES_DBNAME", "POSTGRES_DB"),
    ("POSTGRES_DSN", "DATABASE_URL"),
    ("POSTGRES_PASS", "POSTGRES_PASSWORD"),
    ("POSTGRES_PWD", "POSTGRES_PASSWORD"),
    ("POSTGRES_URI", "DATABASE_URL"),
    ("POSTGRES_URL", "DATABASE_URL"),
    ("POSTGRES_USERNAME", "POSTGRES_USER"),
    ("PPROF_PORT", "PPROF_PORT_API"),
    ("READ_DATABASE_URL", "DATABASE_READ_URL"),
    ("REDIS_ADDR", "REDIS_URL"),
    ("REDIS_DATABASE", "REDIS_URL"),
    ("REDIS_DB", "REDIS_URL"),
];

#[cfg(test)]
mod tests;

//! Variables that look like ours and are not. The operator who set one believes that it has an effect.

use strsim::damerau_levenshtein;

/// Prefixes that no other program has a use for.
const OURS: [&str; 3] = ["INGESTOR_", "AGGREGATOR_", "GENERATOR_"];

/// Letters of a name for each one that may be wrong.
const LETTERS_PER_MISTAKE: usize = 8;

/// Names that other programs use for a setting of ours, and our name for it. Each differs too much from ours to be found by
/// its letters.
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

/// The name of `known` that is nearest to `name`; `None` if `name` is known itself, or belongs to another program.
pub(crate) fn meant<'a>(name: &str, value: &str, known: &'a [String]) -> Option<&'a str> {
    if known.iter().any(|known| known == name) || is_service_link(name, value) {
        return None;
    }
    let written = normal(name);
    if let Some((_, ours)) = SYNONYMS.iter().find(|(synonym, _)| normal(synonym) == written) {
        return known.iter().map(String::as_str).find(|known| known == ours);
    }
    let distance = |known: &String| damerau_levenshtein(&written, &normal(known));
    let nearest = known.iter().filter(|known| !known.ends_with('*')).min_by_key(|known| distance(known))?;
    let is_near = distance(nearest) <= (name.len() / LETTERS_PER_MISTAKE).max(1);
    let is_ours = OURS.iter().any(|prefix| name.to_uppercase().starts_with(prefix));
    (is_near || is_ours).then_some(nearest)
}

fn normal(name: &str) -> String {
    name.to_uppercase().replace(['_', '-', '.'], "")
}

/// Whether Kubernetes has set the variable, for a Service of the pod's namespace: `REDIS_PORT=tcp://10.43.0.9:6379`,
/// `REDIS_SERVICE_HOST`, `REDIS_SERVICE_PORT_CLIENT`, `REDIS_PORT_6379_TCP_ADDR`.
pub(crate) fn is_service_link(name: &str, value: &str) -> bool {
    let (_, after_port) = name.rsplit_once("_PORT_").unwrap_or_default();
    let is_of_port = after_port.split_once('_').is_some_and(|(port, rest)| {
        port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|of| rest.starts_with(of))
    });
    let is_of_service =
        name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_");
    is_of_port || is_of_service || ((name.ends_with("_PORT") || name.ends_with("_HOST")) && is_link(value))
}

/// Whether `value` is the address that Kubernetes gives as `NAME_PORT`.
pub(crate) fn is_link(value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"].iter().find_map(|scheme| value.strip_prefix(scheme));
    address.and_then(|address| address.rsplit_once(':')).is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        let mut variables = crate::Variables::default();
        crate::config::describe_all(&mut variables);
        crate::LogDefaults::SERVICE.describe(&mut variables);
        variables.names()
    }

    #[test]
    fn the_nearest_name_is_suggested() {
        let known = known();
        for (written, expected) in [
            ("INGESTOR_BATCHSIZE", "INGESTOR_BATCH_SIZE"),
            ("INGESTOR_WORKERS", "INGESTOR_WORKER_COUNT"),
            ("ingestor_batch_size", "INGESTOR_BATCH_SIZE"),
            ("AGGREGATOR_BATCH_SIZES", "AGGREGATOR_BATCH_SIZE"),
            ("GENERATOR_RATE", "GENERATOR_EVENTS_PER_SEC"),
            ("POSTGRES_PASS", "POSTGRES_PASSWORD"),
            ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
            ("kafka.bootstrap.servers", "KAFKA_BROKERS"),
            ("REDIS_DB", "REDIS_URL"),
            ("DB_URL", "DATABASE_URL"),
            ("API_PORT", "API_HTTP_PORT"),
            ("PPROF_PORT", "PPROF_PORT_API"),
            ("KAFKA_BROKER", "KAFKA_BROKERS"),
            ("KAFKA_TOPICS", "KAFKA_TOPIC"),
            ("KAFKA_GROUP_ID_INGESTER", "KAFKA_GROUP_ID_INGESTOR"),
            ("REDIS_URI", "REDIS_URL"),
            ("DATABASEURL", "DATABASE_URL"),
            ("POSTGRES_SSL_MODE", "POSTGRES_SSLMODE"),
            ("POSTGRES_PASWORD", "POSTGRES_PASSWORD"),
            ("EVENT_MAXAGE", "EVENT_MAX_AGE"),
            ("API_RATELIMIT", "API_RATE_LIMIT"),
            ("LOG_LEVLE", "LOG_LEVEL"),
        ] {
            assert_eq!(meant(written, "x", &known), Some(expected), "{written}");
        }
        for (synonym, name) in SYNONYMS {
            assert_eq!(meant(synonym, "x", &known), Some(name), "{synonym}");
        }
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        let known = known();
        for (name, value) in [
            ("INGESTOR_BATCH_SIZE", "1"),
            ("LOG_FORMAT", "json"),
            // Kubernetes
            ("REDIS_PORT", "tcp://10.43.0.9:6379"),
            ("REDIS_PORT_6379_TCP", "tcp://10.43.0.9:6379"),
            ("REDIS_PORT_6379_TCP_ADDR", "10.43.0.9"),
            ("POSTGRES_SERVICE_PORT", "5432"),
            ("POSTGRES_SERVICE_PORT_POSTGRES", "5432"),
            ("API_SERVICE_HOST", "10.43.0.10"),
            ("API_PORT", "tcp://10.43.0.10:9090"),
            ("INGESTOR_PORT", "tcp://10.43.0.10:6060"),
            ("INGESTOR_HOST", "tcp://10.43.0.10:6060"),
            ("INGESTOR_SERVICE_HOST", "10.43.0.10"),
            ("INGESTOR_PORT_6060_TCP_PROTO", "tcp"),
            ("GENERATOR_SERVICE_PORT_HTTP", "80"),
            // images
            ("POSTGRES_INITDB_ARGS", "x"),
            ("POSTGRES_INITDB_WALDIR", "x"),
            ("POSTGRES_HOST_AUTH_METHOD", "x"),
            ("POSTGRES_PASSWORD_FILE", "x"),
            ("POSTGRES_USER_FILE", "x"),
            ("POSTGRES_DB_FILE", "x"),
            ("KAFKA_HEAP_OPTS", "x"),
            ("KAFKA_OPTS", "x"),
            ("KAFKA_LISTENERS", "x"),
            ("KAFKA_ADVERTISED_LISTENERS", "x"),
            ("KAFKA_NODE_ID", "1"),
            ("KAFKA_LOG_DIRS", "x"),
            ("KAFKA_HOME", "x"),
            ("KAFKA_CFG_NODE_ID", "1"),
            ("REDIS_PASSWORD", "x"),
            ("REDIS_VERSION", "8"),
            ("REDIS_DATA_DIR", "x"),
            // systems, and programs that share the environment
            ("PATH", "x"),
            ("HOME", "x"),
            ("LOGNAME", "x"),
            ("HOSTNAME", "x"),
            ("PGPASSWORD", "x"),
            ("LOG_FILE", "x"),
            ("LOG_DIR", "x"),
            ("API_URL", "x"),
            ("API_KEY", "x"),
            ("API_PATH", "x"),
            ("API_TOKEN", "x"),
            ("API_HOST", "x"),
            ("API_SECRET", "x"),
            ("EVENT_NAME", "x"),
            ("CACHE_TTL", "x"),
            ("DATABASE_NAME", "x"),
            ("DATABASE_HOST", "x"),
            ("RUST_BACKTRACE", "1"),
            ("FAILPOINTS", "x"),
        ] {
            assert_eq!(meant(name, value, &known), None, "{name}");
        }
    }
}

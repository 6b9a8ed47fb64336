use super::*;

#[test]
fn the_nearest_name_is_suggested() {
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
        assert_eq!(NAMES.suggestion(written, "x").as_deref(), Some(expected), "{written}");
    }
    for (synonym, name) in SYNONYMS {
        assert_eq!(NAMES.suggestion(synonym, "x").as_deref(), Some(name), "{synonym}");
    }
}

#[test]
fn variables_of_other_programs_get_no_suggestion() {
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
        // Container images
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
        // Operating systems, and programs that share the environment
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
        assert_eq!(NAMES.suggestion(name, value), None, "{name}");
    }
}

//! The variables of the services and commands, as CONFIGURATION in README lists them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::process::{EnvError, LogDefaults, Variables};
use netagg_api::ApiLimits;
use netagg_core::usage::{CursorSecret, UsageConfig};
use netagg_core::{ConsumerConfig, ConsumerGroups, EventLimits, HumanDuration};
use netagg_kafka::{ConfigError, KafkaConfig, KafkaTopics};
use netagg_pg::{PartitionPlan, PgAddress, PgConfig, SslMode};
use netagg_redis::RedisConfig;

use super::addresses::{API_GRPC_PORT, API_HTTP_PORT, ApiAddresses, bind_address};
use crate::generator::GeneratorConfig;
use crate::ops::OpsConfig;
use crate::protection::ProtectionConfig;

const DAY: Duration = Duration::from_secs(86_400);

/// The brokers and what is on them.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// How to reach them.
    pub client: KafkaConfig,
    /// The topic of events.
    pub topic: String,
    /// The topic of dead letters.
    pub dlq_topic: String,
}

impl Kafka {
    /// Reads the variables `KAFKA_*`, the groups aside.
    pub fn read(variables: &mut Variables) -> Self {
        let is_set = variables.has("KAFKA_BROKERS");
        let (host, port) = variables.unless(is_set, |variables| {
            let host = variables.text("KAFKA_HOST", "localhost", "a broker's host");
            (host, variables.port("KAFKA_PORT", 9092, "its port"))
        });
        let brokers = variables.parse("KAFKA_BROKERS", "", "overrides both", "host:port,host:port,…", broker_list);
        let (topic, dlq_topic) = topics(variables);
        let mut client = KafkaConfig::new(brokers.unwrap_or_else(|| format!("{host}:{port}")));
        const PREFIX: &str = "KAFKA_OPT_";
        for (name, value) in
            variables.prefixed(PREFIX, "any librdkafka property: KAFKA_OPT_SECURITY_PROTOCOL is security.protocol")
        {
            let property = name[PREFIX.len()..].to_lowercase().replace('_', ".");
            match client.clone().with_option(&property, &value) {
                Ok(with_option) => client = with_option,
                // The error says what is wrong without the value of a secret.
                Err(error) => variables.problem(EnvError::secret(&name, format!("a librdkafka property; {error}"))),
            }
        }
        Self { client, topic, dlq_topic }
    }
}

/// A list of brokers, each `host:port`.
fn broker_list(text: &str) -> Option<String> {
    let is_broker = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| {
            // Only an IPv6 address in brackets has colons of its own.
            let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
            is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    text.split(',').all(|broker| is_broker(broker.trim())).then(|| text.to_owned())
}

fn topic(variables: &mut Variables, name: &str, default: &str, meaning: &str) -> String {
    variables.parse(name, default, meaning, TOPIC_NAME, topic_name).unwrap_or_else(|| default.to_owned())
}

/// Which names topics may have.
pub(crate) const TOPIC_NAME: &str = "1 to 249 of the characters a-z A-Z 0-9 . _ -";

pub(crate) fn topic_name(text: &str) -> Option<String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_name = (1..=249).contains(&text.len()) && text.chars().all(is_legal) && !matches!(text, "." | "..");
    is_name.then(|| text.to_owned())
}

/// The topics of events and of dead letters. Each dead letter or replay marker in the topic of events would become a dead
/// letter again, without end.
fn topics(variables: &mut Variables) -> (String, String) {
    const EVENTS: &str = "KAFKA_TOPIC";
    const DEAD_LETTERS: &str = "KAFKA_DLQ_TOPIC";
    let events = topic(variables, EVENTS, "events.telecom", "the topic of events");
    let dead_letters = topic(variables, DEAD_LETTERS, "events.telecom.dlq", "the topic of dead letters");
    if events == dead_letters {
        variables.same([DEAD_LETTERS, EVENTS], &events, "topic");
    }
    if events == netagg_kafka::replay_markers_topic(&dead_letters) {
        let accepted = "another topic than KAFKA_DLQ_TOPIC.replayed, which holds the markers of replays";
        variables.problem(EnvError::new(EVENTS, &events, accepted));
    }
    (events, dead_letters)
}

/// Declares the variables of all commands, for the help.
pub(crate) fn declare_all_of_commands(variables: &mut Variables) {
    let addresses = ApiAddresses::read(variables);
    ProtectionConfig::read(variables, &addresses);
    postgres(variables, 2, "netagg");
    redis(variables);
    Kafka::read(variables);
    Groups::read(variables);
    event_limits(variables);
    partitions_ahead(variables);
}

/// Declares the variables of all programs.
pub(super) fn declare_all(variables: &mut Variables) {
    LogDefaults::SERVICE.describe(variables);
    Kafka::read(variables);
    Groups::read(variables);
    let writing = postgres(variables, 1, "");
    read_postgres(variables, &writing);
    redis(variables);
    let limits = event_limits(variables);
    partition_plan(variables, limits);
    for (service, port) in [("INGESTOR", "PPROF_PORT_INGESTOR"), ("AGGREGATOR", "PPROF_PORT_AGGREGATOR")] {
        consumer(variables, service);
        ops(variables, port, 1);
    }
    let addresses = ApiAddresses::read(variables);
    api_ops(variables, &addresses, 1);
    ProtectionConfig::read(variables, &addresses);
    Answers::read(variables);
    GeneratorConfig::read(variables);
}

/// The consumer groups of the services.
#[derive(Clone, Debug)]
pub struct Groups {
    /// The ingestors'.
    pub ingestor: String,
    /// The aggregators'.
    pub aggregator: String,
}

impl Groups {
    /// Reads both groups, also for a service that is a member of one only: in one group, each service would get a part of the
    /// records, and totals would be wrong.
    pub fn read(variables: &mut Variables) -> Self {
        const INGESTOR: &str = "KAFKA_GROUP_ID_INGESTOR";
        const AGGREGATOR: &str = "KAFKA_GROUP_ID_AGGREGATOR";
        let ingestor = variables.text(INGESTOR, "ingestor-group", "the ingestors' consumer group");
        let aggregator = variables.text(AGGREGATOR, "aggregator-group", "the aggregators' consumer group");
        if ingestor == aggregator {
            variables.same([AGGREGATOR, INGESTOR], &ingestor, "group");
        }
        Self { ingestor, aggregator }
    }
}

/// The groups of both services that read the topic of events of `kafka`.
///
/// # Errors
/// If no client can be made of the configuration.
pub(crate) fn consumer_groups(kafka: &Kafka, groups: Groups) -> Result<ConsumerGroups, ConfigError> {
    let offsets = Arc::new(KafkaTopics::new(&kafka.client)?);
    let Groups { ingestor, aggregator } = groups;
    Ok(ConsumerGroups { offsets, topic: kafka.topic.clone(), ingestor, aggregator })
}

/// The database that events and totals are kept in.
pub fn postgres(variables: &mut Variables, max_connections: u32, application_name: &str) -> PgConfig {
    let is_set = variables.has("DATABASE_URL");
    let parts = variables.unless(is_set, address_of_parts);
    let meaning = "postgres://user:password@host:port/database; overrides all these";
    let address = database_url(variables, "DATABASE_URL", meaning).unwrap_or(parts);
    let mut config = PgConfig::new(address);
    config.max_connections = max_connections;
    application_name.clone_into(&mut config.application_name);
    config
}

fn address_of_parts(variables: &mut Variables) -> PgAddress {
    let host = variables.text("POSTGRES_HOST", "localhost", "PostgreSQL's host, or the folder of its socket");
    let port = variables.port("POSTGRES_PORT", 5432, "its port");
    let user = variables.text("POSTGRES_USER", "app_user", "who connects");
    let password = variables.text("POSTGRES_PASSWORD", "app_password", "the password");
    let database = variables.text("POSTGRES_DB", "network_events", "the database");
    const MODES: [(&str, SslMode); 6] = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let mode = variables.choice("POSTGRES_SSLMODE", &MODES.map(|(name, _)| name), "TLS, as libpq names it");
    let ssl_mode = MODES.iter().find(|(name, _)| *name == mode).map_or(SslMode::Disable, |(_, mode)| *mode);
    PgAddress::new(&host, port, &user, &password, &database, ssl_mode)
}

fn database_url(variables: &mut Variables, name: &str, meaning: &str) -> Option<PgAddress> {
    let url = variables.optional_text(name, "", meaning)?;
    match url.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            variables.problem(EnvError::secret(name, "postgres://user:password@host:port/database?sslmode=…"));
            None
        }
    }
}

/// The database that the API reads: `DATABASE_READ_URL`, else the one of the others.
pub fn read_postgres(variables: &mut Variables, writing: &PgConfig) -> PgConfig {
    let url = database_url(variables, "DATABASE_READ_URL", "a replica for the API's reads; default: the same database");
    let address = url.unwrap_or_else(|| writing.address.clone());
    let mut config = writing.clone();
    config.address = address;
    config.max_connections = 16;
    // No request waits longer for its answer, and the server gives up a statement that no request waits for.
    config.statement_timeout = ApiLimits::default().request_timeout;
    config.client_check_interval = Some(Duration::from_millis(250));
    config
}

/// The cache.
pub fn redis(variables: &mut Variables) -> RedisConfig {
    let is_set = variables.has("REDIS_URL");
    let (host, port) = variables.unless(is_set, |variables| {
        (variables.text("REDIS_HOST", "localhost", "Redis's host"), variables.port("REDIS_PORT", 6379, "its port"))
    });
    let url = variables.optional_text(
        "REDIS_URL",
        "",
        "redis://…, redis-cluster://…?node=…, redis-sentinel://…?node=…&sentinelServiceName=…, rediss… for TLS; overrides \
         both",
    );
    match url.as_deref().map(RedisConfig::from_url) {
        None => RedisConfig::at(&host, port),
        Some(Ok(config)) => config,
        Some(Err(_)) => {
            variables.problem(EnvError::secret(
                "REDIS_URL",
                "redis://user:password@host:port/database, redis-cluster://…, \
                 redis-sentinel://…?sentinelServiceName=…, or the same with rediss for TLS",
            ));
            RedisConfig::default()
        }
    }
}

/// Which events are taken.
pub fn event_limits(variables: &mut Variables) -> EventLimits {
    let any = Duration::ZERO..=3_652_059 * DAY;
    let default = EventLimits::default();
    EventLimits {
        max_age: variables.duration(
            "EVENT_MAX_AGE",
            default.max_age,
            any.clone(),
            "oldest event taken, before its record's time",
        ),
        max_future: variables.duration(
            "EVENT_MAX_FUTURE",
            default.max_future,
            any,
            "newest event taken, after its record's time",
        ),
    }
}

/// How many months of partitions are made ahead.
pub fn partitions_ahead(variables: &mut Variables) -> u32 {
    let default = u64::from(PartitionPlan::default().ahead);
    variables.number("PARTITIONS_AHEAD", default, 0..=120, "months of partitions made ahead") as u32
}

/// Which partitions there are to be, where events are judged by `limits`.
pub fn partition_plan(variables: &mut Variables, limits: EventLimits) -> PartitionPlan {
    const RETENTION: &str = "EVENT_RETENTION";
    let accepted = format!("{}, not less than EVENT_MAX_AGE", HumanDuration::ACCEPTED);
    let meaning = "how long events are kept, in whole months; totals stay; default: for ever";
    let parse = |text: &str| {
        text.parse().ok().map(|HumanDuration(retention)| retention).filter(|retention| *retention >= limits.max_age)
    };
    let ahead = partitions_ahead(variables);
    let retention = variables.parse(RETENTION, "", meaning, &accepted, parse);
    PartitionPlan::default().with_ahead(ahead).with_retention(retention)
}

/// The batches of the consumer whose variables start with `prefix`.
pub fn consumer(variables: &mut Variables, prefix: &str) -> ConsumerConfig {
    let mut config = ConsumerConfig::default();
    let workers = variables.number(
        &format!("{prefix}_WORKER_COUNT"),
        config.batches_in_flight as u64,
        1..=64,
        "batches written to PostgreSQL at a time",
    );
    let batch_size = variables.number(
        &format!("{prefix}_BATCH_SIZE"),
        config.batch_size as u64,
        1..=50_000,
        "most events of a batch",
    );
    config.batch_timeout = variables.duration(
        &format!("{prefix}_BATCH_TIMEOUT"),
        config.batch_timeout,
        Duration::from_millis(1)..=Duration::from_secs(60),
        "longest an event waits for its batch to fill",
    );
    config.batch_size = batch_size as usize;
    config.batches_in_flight = workers as usize;
    config
}

/// Where the ops port of a service listens, and what it tells.
pub fn ops(variables: &mut Variables, name: &str, port: u16) -> OpsConfig {
    let address = bind_address(variables, "OPS_BIND", "address of the ops port (/healthz, /readyz, /metrics)");
    let address = SocketAddr::new(address, variables.port(name, port, "the ops port"));
    let pprof = variables.flag("PPROF_ENABLED", true, "whether the ops port gives profiles (/debug/pprof)");
    OpsConfig { address, pprof }
}

/// Where the ops port of the API listens: on another port than its clients' two.
pub fn api_ops(variables: &mut Variables, addresses: &ApiAddresses, port: u16) -> OpsConfig {
    const NAME: &str = "PPROF_PORT_API";
    let ops = ops(variables, NAME, port);
    for (address, name) in [(addresses.http, API_HTTP_PORT), (addresses.grpc, API_GRPC_PORT)] {
        if ops.address.port() == address.port() && overlap(ops.address.ip(), address.ip()) {
            variables.same([NAME, name], &address.port().to_string(), "port");
        }
    }
    ops
}

/// Whether one port cannot be bound at both addresses.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    // `::` takes connections of IPv4, too.
    let includes = |all: IpAddr, address: IpAddr| all.is_unspecified() && (all.is_ipv6() || address.is_ipv4());
    one == other || includes(one, other) || includes(other, one)
}

/// How long answers are kept, and the cursor secret if it is configured.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The secret of `API_CURSOR_SECRET`; without it, the database's.
    pub cursor_secret: Option<CursorSecret>,
    detail_ttl: Duration,
    day_ttl: Duration,
    month_ttl: Duration,
}

impl Answers {
    /// Reads `API_CURSOR_SECRET` and `CACHE_*`.
    pub fn read(variables: &mut Variables) -> Self {
        let default = UsageConfig::default();
        let ttl = Duration::from_secs(1)..=365 * DAY;
        let secret = variables.optional_text(
            "API_CURSOR_SECRET",
            "",
            "authenticates cursors, 16 characters or more; default: made once, kept in the database",
        );
        if secret.as_ref().is_some_and(|secret| secret.chars().count() < 16) {
            variables.problem(EnvError::secret("API_CURSOR_SECRET", "16 characters or more"));
        }
        Self {
            cursor_secret: secret.map(CursorSecret::new),
            detail_ttl: variables.duration(
                "CACHE_DETAIL_TTL",
                default.detail_ttl,
                ttl.clone(),
                "how long detail pages are kept",
            ),
            day_ttl: variables.duration(
                "CACHE_AGG_DAY_TTL",
                default.day_ttl,
                ttl.clone(),
                "how long daily totals are kept",
            ),
            month_ttl: variables.duration(
                "CACHE_AGG_MONTH_TTL",
                default.month_ttl,
                ttl,
                "how long monthly totals are kept",
            ),
        }
    }

    /// What the usage service needs.
    pub fn usage_config(&self, cursor_secret: CursorSecret) -> UsageConfig {
        let mut config = UsageConfig::new(cursor_secret);
        config.detail_ttl = self.detail_ttl;
        config.day_ttl = self.day_ttl;
        config.month_ttl = self.month_ttl;
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(values: &[(&str, &str)], read: impl Fn(&mut Variables)) -> String {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut variables = Variables::from_values(values);
        read(&mut variables);
        variables.check().err().unwrap_or_default().iter().map(EnvError::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn defaults_are_accepted() {
        let read = |variables: &mut Variables| {
            Kafka::read(variables);
            let config = postgres(variables, 4, "test");
            read_postgres(variables, &config);
            redis(variables);
            event_limits(variables);
            consumer(variables, "INGESTOR");
            ApiAddresses::read(variables);
            Answers::read(variables);
        };
        assert_eq!(problems(&[], read), "");
    }

    #[test]
    fn a_librdkafka_property_is_passed_through_or_named() {
        let read = |variables: &mut Variables| drop(Kafka::read(variables));
        assert_eq!(problems(&[("KAFKA_OPT_SECURITY_PROTOCOL", "plaintext")], read), "");
        for name in ["KAFKA_OPT_NO_SUCH", "KAFKA_OPT_ENABLE_AUTO_COMMIT", "KAFKA_OPT_AUTO_OFFSET_RESET"] {
            assert!(problems(&[(name, "1")], read).starts_with(name), "{name}");
        }
    }

    #[test]
    fn brokers_and_topics_that_cannot_be_are_refused() {
        let read = |variables: &mut Variables| drop(Kafka::read(variables));
        for brokers in ["one:9092,two:9092", "[::1]:9092", "10.0.0.1:1, b:2"] {
            assert_eq!(problems(&[("KAFKA_BROKERS", brokers)], read), "");
        }
        for brokers in [",", "a:b:c", "host", "host:0", ":9092", "host:9092,"] {
            assert!(problems(&[("KAFKA_BROKERS", brokers)], read).starts_with("KAFKA_BROKERS"), "{brokers}");
        }
        assert!(problems(&[("KAFKA_TOPIC", "bad topic")], read).starts_with("KAFKA_TOPIC"));
    }

    #[test]
    fn two_things_that_must_differ_are_named() {
        let read = |variables: &mut Variables| {
            Kafka::read(variables);
            Groups::read(variables);
            let addresses = ApiAddresses::read(variables);
            api_ops(variables, &addresses, 6062);
        };
        for (values, told) in [
            (
                &[("KAFKA_TOPIC", "t"), ("KAFKA_DLQ_TOPIC", "t")][..],
                r#"KAFKA_DLQ_TOPIC="t": accepted: another topic than KAFKA_TOPIC"#,
            ),
            // The value that is set is named, not the default.
            (&[("KAFKA_TOPIC", "events.telecom.dlq")], "KAFKA_TOPIC="),
            (&[("KAFKA_TOPIC", "t.replayed"), ("KAFKA_DLQ_TOPIC", "t")], "KAFKA_TOPIC="),
            (&[("KAFKA_GROUP_ID_INGESTOR", "g"), ("KAFKA_GROUP_ID_AGGREGATOR", "g")], "KAFKA_GROUP_ID_AGGREGATOR="),
            (&[("KAFKA_GROUP_ID_INGESTOR", "aggregator-group")], "KAFKA_GROUP_ID_INGESTOR="),
            (&[("API_GRPC_PORT", "8000")], r#"API_GRPC_PORT="8000": accepted: another port than API_HTTP_PORT"#),
            (&[("API_HTTP_PORT", "1"), ("API_GRPC_PORT", "1"), ("API_BIND", "::1")], "API_HTTP_PORT="),
            (&[("PPROF_PORT_API", "8000")], r#"PPROF_PORT_API="8000": accepted: another port than API_HTTP_PORT"#),
            (&[("API_GRPC_PORT", "6062"), ("API_BIND", "0.0.0.0")], "API_GRPC_PORT="),
            (&[("API_GRPC_PORT", "6062"), ("OPS_BIND", "::")], "API_GRPC_PORT="),
        ] {
            let problems = problems(values, read);
            assert!(problems.starts_with(told) && problems.lines().count() == 1, "{values:?}: {problems}");
        }
        for apart in [("OPS_BIND", "127.0.0.2"), ("API_BIND", "127.0.0.2"), ("API_BIND", "::1")] {
            assert_eq!(problems(&[("PPROF_PORT_API", "8000"), apart], read), "", "{apart:?}");
        }
    }

    #[test]
    fn no_password_shows() {
        let read = |variables: &mut Variables| {
            postgres(variables, 4, "test");
            redis(variables);
        };
        let shown = problems(&[("DATABASE_URL", "mysql://me:s3cret@host/db"), ("REDIS_URL", "http://:s3cret@h")], read);
        assert!(shown.contains("DATABASE_URL") && shown.contains("REDIS_URL") && !shown.contains("s3cret"), "{shown}");
    }
}

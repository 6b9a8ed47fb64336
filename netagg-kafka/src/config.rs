//! How to reach the brokers, and other properties of librdkafka.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaConfRes;

/// The brokers, and other properties of librdkafka.
///
/// The defaults bound memory and lose no events. [`with_option`](Self::with_option) sets other properties of librdkafka,
/// such as `security.protocol`.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    brokers: String,
    options: BTreeMap<String, String>,
}

impl KafkaConfig {
    /// The bootstrap brokers: `host:port`, several separated by commas.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), options: BTreeMap::new() }
    }

    /// The bootstrap brokers.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Sets a property of librdkafka for all clients. Producers ignore properties of consumers, and consumers ignore
    /// properties of producers.
    ///
    /// An alias stands for the property that it names: `compression.type` replaces `compression.codec`.
    ///
    /// # Errors
    /// For a property that librdkafka does not have, a value that it does not accept, and a property that is
    /// [reserved](ConfigError::Reserved). No error shows the value of a secret.
    pub fn with_option(mut self, name: &str, value: &str) -> Result<Self, ConfigError> {
        let canonical = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, property)| property);
        if let Some((_, reason)) = RESERVED.iter().find(|(reserved, _)| *reserved == canonical) {
            return Err(ConfigError::Reserved { name: name.to_owned(), reason });
        }
        match ClientConfig::new().set(canonical, value).create_native_config() {
            Ok(_) => {}
            Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
                return Err(ConfigError::Unknown { name: name.to_owned() });
            }
            Err(_) if is_secret(canonical) => {
                let (value, reason) = ("(not shown)".to_owned(), "not accepted by librdkafka".to_owned());
                return Err(ConfigError::Invalid { name: name.to_owned(), value, reason });
            }
            Err(error) => {
                let reason = match error {
                    KafkaError::ClientConfig(_, reason, ..) => reason,
                    other => other.to_string(),
                };
                return Err(ConfigError::Invalid { name: name.to_owned(), value: value.to_owned(), reason });
            }
        }
        self.options.insert(canonical.to_owned(), value.to_owned());
        Ok(self)
    }

    /// Checks whether librdkafka accepts these properties together for a member of `group`. So a program can fail before it
    /// connects to other services.
    ///
    /// # Errors
    /// For properties that contradict each other, and files that cannot be read.
    pub fn check_consumer(&self, group: &str) -> Result<(), ConfigError> {
        self.consumer(group).create::<BaseConsumer>()?;
        Ok(())
    }

    /// The properties of a member of `group`.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client(CONSUMER);
        config.set("group.id", group);
        let longest = self.options.get("session.timeout.ms").filter(|timeout| is_longer(timeout, MAX_POLL_INTERVAL));
        if let Some(timeout) = longest.filter(|_| !self.options.contains_key("max.poll.interval.ms")) {
            // librdkafka requires that this interval is not shorter than the session timeout.
            config.set("max.poll.interval.ms", timeout);
        }
        if self.options.get("group.protocol").is_some_and(|protocol| protocol == "consumer") {
            // With this protocol, the broker decides these properties, and librdkafka rejects them.
            for property in ["heartbeat.interval.ms", "partition.assignment.strategy", "session.timeout.ms"] {
                config.remove(property);
            }
        }
        config
    }

    /// The properties of a reader that chooses its own partitions: it joins no group and commits nothing.
    pub(crate) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer(READERS_GROUP);
        for property in ["group.instance.id", "group.protocol", "group.remote.assignor"] {
            config.remove(property);
        }
        config.set("statistics.interval.ms", "0");
        for (name, value) in READER.iter().filter(|(name, _)| !self.options.contains_key(*name)) {
            config.set(*name, *value);
        }
        config
    }

    /// The properties of a producer with batches of at most `batch_bytes`.
    pub(crate) fn producer(&self, batch_bytes: usize) -> ClientConfig {
        let mut config = self.client(PRODUCER);
        if !self.options.contains_key("batch.size") {
            config.set("batch.size", batch_bytes.to_string());
        }
        config
    }

    /// The properties of a producer that sends in transactions with the id `id`. Only one such producer works at a time.
    pub(crate) fn transactional_producer(&self, id: &str, batch_bytes: usize) -> ClientConfig {
        const TIMEOUT: &str = "transaction.timeout.ms";
        let mut config = self.producer(batch_bytes);
        config.set("transactional.id", id);
        if !self.options.contains_key(TIMEOUT) {
            // If a producer dies, it blocks the readers of its topics for this time. So the timeout is as short as
            // possible: librdkafka requires that no message outlives its transaction.
            config.set(TIMEOUT, MESSAGE_TIMEOUT);
        }
        config
    }

    /// The properties of a client that neither reads nor writes records.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.client(&[])
    }

    fn client(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        let debugging = self.options.contains_key("debug");
        config.set_log_level(if debugging { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Warning });
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in CLIENT.iter().chain(defaults) {
            config.set(*name, *value);
        }
        config.extend(self.options.clone());
        config
    }
}

impl Default for KafkaConfig {
    /// A broker on this machine, at Kafka's usual port.
    fn default() -> Self {
        Self::new("localhost:9092")
    }
}

impl fmt::Debug for KafkaConfig {
    /// Shows which options are set, but not their values, because some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<_> = self.options.keys().collect();
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers).field("options", &options).finish()
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// librdkafka has no such property.
    #[error("{name} is no property of librdkafka; its CONFIGURATION.md lists all properties")]
    Unknown {
        /// The property, as the caller named it.
        name: String,
    },
    /// The property does not accept the value.
    #[error("{name} does not accept {value}: {reason}")]
    Invalid {
        /// The property, as the caller named it.
        name: String,
        /// The value; not shown for a secret.
        value: String,
        /// The reason that librdkafka gives.
        reason: String,
    },
    /// netagg sets the property itself; another value would break a guarantee.
    #[error("{name} cannot be set: {reason}")]
    Reserved {
        /// The property, as the caller named it.
        name: String,
        /// The guarantee that depends on the property.
        reason: &'static str,
    },
    /// Each property is valid, but librdkafka cannot create a client with all of them.
    #[error("librdkafka refuses the configuration: {reason}")]
    Refused {
        /// The reason that librdkafka gives.
        reason: String,
    },
}

impl From<KafkaError> for ConfigError {
    /// Converts an error from the creation of a client.
    fn from(error: KafkaError) -> Self {
        let reason = match error {
            // The text of this error has the value, which may be a secret.
            KafkaError::ClientConfig(_, _, name, _) => format!("{name} has a value that it does not accept"),
            KafkaError::ClientCreation(reason) => reason,
            other => {
                other.rdkafka_error_code().map_or_else(|| other.to_string(), |code: RDKafkaErrorCode| code.to_string())
            }
        };
        Self::Refused { reason }
    }
}

/// The group name of readers, which librdkafka requires although they join no group.
const READERS_GROUP: &str = "netagg-reader";

/// How long a member of a group may go without polling, in milliseconds.
const MAX_POLL_INTERVAL: &str = "60000";

fn is_longer(millis: &str, other: &str) -> bool {
    millis.parse::<u64>().ok() > other.parse().ok()
}

/// How long a producer tries to send a message, in milliseconds.
const MESSAGE_TIMEOUT: &str = "30000";

/// The properties of all clients.
const CLIENT: &[(&str, &str)] = &[
    ("client.id", "netagg"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.keepalive.enable", "true"),
    // A topic that is created later is found within this time.
    ("topic.metadata.refresh.interval.ms", "5000"),
];

const CONSUMER: &[(&str, &str)] = &[
    // A new group starts at the first offset.
    ("auto.offset.reset", "earliest"),
    // Only offsets of stored events are committed, and the source commits them itself.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // At a low rate, the broker would send each event in its own response, and each response costs a transaction. So the broker
    // waits for more events, at most 200 ms. At 5,000 events a second from one broker, a response is full
    // after 30 ms.
    ("fetch.min.bytes", "16384"),
    ("fetch.wait.max.ms", "200"),
    // These limits apply to compressed data: events grow tenfold when decompressed. A larger message is still delivered.
    ("fetch.max.bytes", "2097152"),
    ("fetch.message.max.bytes", "262144"),
    // With its defaults, librdkafka holds 64 MiB, and pauses for a second whenever this buffer is full.
    ("fetch.queue.backoff.ms", "50"),
    // librdkafka reports the end of a partition, because offsets without a record may lie before it.
    ("enable.partition.eof", "true"),
    ("queued.max.messages.kbytes", "16384"),
    ("isolation.level", "read_committed"),
    // In a rebalance, members keep the partitions that stay theirs. They learn of a rebalance by a heartbeat. If they
    // crash, they are replaced after the session timeout.
    ("heartbeat.interval.ms", "1000"),
    // How long a rebalance waits for a member that takes no part in it. A separate thread polls, so no member needs longer.
    ("max.poll.interval.ms", MAX_POLL_INTERVAL),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "15000"),
    // The statistics show which brokers are connected.
    ("statistics.interval.ms", "1000"),
];

/// The properties of readers without a group, in addition to the properties of consumers.
const READER: &[(&str, &str)] = &[
    // Dead letters are alike and compress well: fetched data grows a hundredfold when decompressed.
    ("fetch.message.max.bytes", "65536"),
    ("queued.min.messages", "5000"),
];

const PRODUCER: &[(&str, &str)] = &[
    ("acks", "all"),
    ("compression.codec", "lz4"),
    ("enable.idempotence", "true"),
    ("queue.buffering.max.ms", "5"),
    // Large enough for the largest dead letter. The broker decides which size it accepts.
    ("message.max.bytes", "2097152"),
    ("message.timeout.ms", MESSAGE_TIMEOUT),
    // The same partitioner as in Java's clients, so that all clients send a key to the same partition. Records with a null
    // key go to any partition.
    ("partitioner", "murmur2_random"),
    ("queue.buffering.max.kbytes", "32768"),
];

/// Aliases, and the properties that they name. librdkafka would use the property that was set last, but properties are set
/// here in no particular order.
const ALIASES: &[(&str, &str)] = &[
    ("auto.commit.enable", "enable.auto.commit"),
    ("compression.type", "compression.codec"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("max.in.flight.requests.per.connection", "max.in.flight"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("request.required.acks", "acks"),
    ("retries", "message.send.max.retries"),
    ("sasl.mechanism", "sasl.mechanisms"),
];

/// The properties that options cannot set, and the reasons.
const RESERVED: &[(&str, &str)] = &[
    ("acks", "an event counts as sent when all replicas in sync have it"),
    ("auto.offset.reset", "a new group must start with the first event"),
    ("bootstrap.servers", "the brokers are configured separately"),
    ("delivery.report.only.error", "the producer waits for the result of every event"),
    ("enable.auto.commit", "only offsets of stored events are committed"),
    ("enable.auto.offset.store", "only offsets of stored events are committed"),
    ("enable.partition.eof", "positions pass the offsets at the end of a partition that hold no record"),
    ("enable.idempotence", "events of one user must stay in order"),
    ("group.id", "the group is configured separately"),
    ("isolation.level", "events of aborted transactions must not be read"),
    ("offset.store.method", "offsets are kept by the broker"),
    ("statistics.interval.ms", "readiness and lag depend on the statistics"),
    ("transactional.id", "only a replay sends in transactions, one at a time"),
];

fn is_secret(property: &str) -> bool {
    ["password", "passphrase", "secret", ".pem", "oauthbearer.config"].iter().any(|part| property.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::BaseProducer;

    fn with(options: &[(&str, &str)]) -> Result<KafkaConfig, ConfigError> {
        options.iter().try_fold(KafkaConfig::default(), |config, (name, value)| config.with_option(name, value))
    }

    fn makes_clients(options: &[(&str, &str)]) {
        let config = with(options).expect("valid options");
        config.consumer("group").create::<BaseConsumer>().unwrap_or_else(|error| panic!("{options:?}: {error}"));
        config.reader().create::<BaseConsumer>().unwrap_or_else(|error| panic!("{options:?}: {error}"));
        config.producer(1_000).create::<BaseProducer>().unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let transactional = config.transactional_producer("id", 1_000).create::<BaseProducer>();
        transactional.unwrap_or_else(|error| panic!("{options:?}: {error}"));
    }

    #[test]
    fn every_promised_codec_and_protocol_is_built_in() {
        makes_clients(&[]);
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            makes_clients(&[("compression.type", codec)]);
        }
        makes_clients(&[("security.protocol", "ssl")]);
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            for protocol in ["sasl_plaintext", "sasl_ssl"] {
                let login = [("sasl.username", "user"), ("sasl.password", "password")];
                makes_clients(
                    &[&[("security.protocol", protocol), ("sasl.mechanism", mechanism)][..], &login].concat(),
                );
            }
        }
        makes_clients(&[("partition.assignment.strategy", "range")]);
        makes_clients(&[("group.protocol", "consumer"), ("group.remote.assignor", "uniform")]);
    }

    #[test]
    fn an_option_replaces_the_default_also_by_its_alias() {
        let config = with(&[("linger.ms", "20"), ("fetch.max.bytes", "1000000")]).expect("valid");
        assert_eq!(config.producer(1_000).get("queue.buffering.max.ms"), Some("20"));
        assert_eq!(config.producer(1_000).get("linger.ms"), None);
        assert_eq!(config.consumer("group").get("fetch.max.bytes"), Some("1000000"));
    }

    #[test]
    fn wrong_options_are_named() {
        assert_eq!(with(&[("no.such", "1")]), Err(ConfigError::Unknown { name: "no.such".to_owned() }));
        for (name, value) in [("fetch.min.bytes", "0"), ("fetch.min.bytes", "many"), ("compression.type", "rar")] {
            let error = with(&[(name, value)]).expect_err("invalid");
            assert!(matches!(&error, ConfigError::Invalid { name: named, .. } if named == name), "{error}");
            assert!(error.to_string().contains(value), "{error}");
        }
        for name in RESERVED.iter().map(|(name, _)| *name).chain(["request.required.acks", "auto.commit.enable"]) {
            let error = with(&[(name, "1")]).expect_err("reserved");
            assert!(matches!(&error, ConfigError::Reserved { name: named, .. } if named == name), "{error}");
        }
        let error = with(&[("rebalance_cb", "1")]).expect_err("no text is accepted");
        assert!(matches!(error, ConfigError::Invalid { .. }), "{error}");
    }

    #[test]
    fn properties_that_contradict_each_other_are_refused() {
        let config = with(&[("session.timeout.ms", "10000"), ("max.poll.interval.ms", "5000")]).expect("valid each");
        let error = config.consumer("group").create::<BaseConsumer>().map(drop).expect_err("too short");
        assert!(ConfigError::from(error).to_string().contains("max.poll.interval.ms"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = with(&[("sasl.password", "hunter2"), ("ssl.key.password", "hunter2")]).expect("valid");
        let shown = format!("{config:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
        let error = with(&[("ssl.key.pem", "hunter2\0")]).expect_err("NUL");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

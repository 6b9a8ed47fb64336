//! The brokers, the topics and the consumer groups.

use std::sync::Arc;

use netagg_core::ConsumerGroups;
use netagg_kafka::{ConfigError, KafkaConfig, KafkaTopics};

use crate::process::{EnvError, Variables};

/// The brokers and the topics.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// The configuration of the clients.
    pub client: KafkaConfig,
    /// The topic of the events.
    pub topic: String,
    /// The dead-letter topic.
    pub dlq_topic: String,
}

impl Kafka {
    /// Reads the variables `KAFKA_*`, except the groups.
    pub fn read(variables: &mut Variables) -> Self {
        variables.group("Broker (Kafka)");
        let is_set = variables.has("KAFKA_BROKERS");
        let (host, port) = variables.unless(is_set, |variables| {
            let host = variables.text("KAFKA_HOST", "localhost", "host name or IP address of a broker");
            (host, variables.port("KAFKA_PORT", 9092, "TCP port of this broker"))
        });
        let brokers = variables.parse(
            "KAFKA_BROKERS",
            "",
            "brokers as host:port,host:port,…, instead of KAFKA_HOST and KAFKA_PORT",
            "host:port,host:port,…",
            broker_list,
        );
        let (topic, dlq_topic) = topics(variables);
        let mut client = KafkaConfig::new(brokers.unwrap_or_else(|| format!("{host}:{port}")));
        const PREFIX: &str = "KAFKA_OPT_";
        for (name, value) in variables.prefixed(
            PREFIX,
            "any property of librdkafka, such as for TLS: KAFKA_OPT_SECURITY_PROTOCOL sets security.protocol",
        ) {
            let property = name[PREFIX.len()..].to_lowercase().replace('_', ".");
            match client.clone().with_option(&property, &value) {
                Ok(with_option) => client = with_option,
                // The error gives the reason without the value of a secret.
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
            // A host contains colons only if it is an IPv6 address in brackets.
            let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
            is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    text.split(',').all(|broker| is_broker(broker.trim())).then(|| text.to_owned())
}

fn topic(variables: &mut Variables, name: &str, default: &str, meaning: &str) -> String {
    variables.parse(name, default, meaning, TOPIC_NAME, topic_name).unwrap_or_else(|| default.to_owned())
}

/// The accepted names of topics.
pub(crate) const TOPIC_NAME: &str = "1 to 249 of the characters a-z A-Z 0-9 . _ -";

pub(crate) fn topic_name(text: &str) -> Option<String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_name = (1..=249).contains(&text.len()) && text.chars().all(is_legal) && !matches!(text, "." | "..");
    is_name.then(|| text.to_owned())
}

/// Reads the topic of events and the dead-letter topic. They must differ: a dead letter or a replay marker in the topic of
/// events would become a new dead letter, without end.
fn topics(variables: &mut Variables) -> (String, String) {
    const EVENTS: &str = "KAFKA_TOPIC";
    const DEAD_LETTERS: &str = "KAFKA_DLQ_TOPIC";
    let events = topic(variables, EVENTS, "events.telecom", "topic of the events");
    let dead_letters = topic(
        variables,
        DEAD_LETTERS,
        "events.telecom.dlq",
        "topic of the dead letters: invalid messages with the reason",
    );
    if events == dead_letters {
        variables.same([DEAD_LETTERS, EVENTS], &events, "topic");
    }
    if events == netagg_kafka::replay_markers_topic(&dead_letters) {
        let accepted = "another topic than KAFKA_DLQ_TOPIC.replayed, which holds the markers of replays";
        variables.problem(EnvError::new(EVENTS, &events, accepted));
    }
    (events, dead_letters)
}

/// The consumer groups of the services.
#[derive(Clone, Debug)]
pub struct Groups {
    /// The group of the ingestors.
    pub ingestor: String,
    /// The group of the aggregators.
    pub aggregator: String,
}

impl Groups {
    /// Reads both groups, also for a service that is a member of only one group, and checks that they differ. If both
    /// services were in the same group, each service would get only a part of the records, and totals would be wrong.
    pub fn read(variables: &mut Variables) -> Self {
        const INGESTOR: &str = "KAFKA_GROUP_ID_INGESTOR";
        const AGGREGATOR: &str = "KAFKA_GROUP_ID_AGGREGATOR";
        variables.group("Broker (Kafka)");
        let ingestor = variables.text(INGESTOR, "ingestor-group", "consumer group of all ingestors");
        let aggregator = variables.text(AGGREGATOR, "aggregator-group", "consumer group of all aggregators");
        if ingestor == aggregator {
            variables.same([AGGREGATOR, INGESTOR], &ingestor, "group");
        }
        Self { ingestor, aggregator }
    }
}

/// The groups of both services that read the topic of events of `kafka`.
///
/// # Errors
/// If the configuration is not valid for a client.
pub(crate) fn consumer_groups(kafka: &Kafka, groups: Groups) -> Result<ConsumerGroups, ConfigError> {
    let offsets = Arc::new(KafkaTopics::new(&kafka.client)?);
    let Groups { ingestor, aggregator } = groups;
    Ok(ConsumerGroups { offsets, topic: kafka.topic.clone(), ingestor, aggregator: Some(aggregator) })
}

//! A broker that speaks Kafka's protocol: Redpanda in a container, Apache Kafka natively.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use crate::keeper::Signals;
use crate::port::Port;
use crate::proxy::Proxy;
use crate::server::{self, Recipe};
use crate::shared::{self, Shared};

const VARIABLE: &str = "NETAGG_TEST_KAFKA_BROKERS";

/// The address of the shared broker, as `bootstrap.servers` takes it. Topics do not create themselves.
///
/// # Panics
/// When none can be had.
pub async fn brokers() -> String {
    static BROKER: Shared<SharedBroker> = Shared::new();
    match shared::get(&BROKER, SharedBroker::find).await {
        SharedBroker::Given(brokers) => brokers.clone(),
        SharedBroker::Started(server) => address(server.port()),
    }
}

enum SharedBroker {
    Given(String),
    Started(server::Server<Kafka>),
}

impl SharedBroker {
    async fn find() -> Result<Self, String> {
        if let Some(brokers) = shared::from_environment(VARIABLE) {
            list_metadata(brokers.clone()).await.map_err(|error| format!("{VARIABLE}: {error}"))?;
            server::announce("kafka", &format!("address from {VARIABLE}"));
            return Ok(Self::Given(brokers));
        }
        server::Server::start(|| Kafka::new(&[], None)).await.map(Self::Started)
    }
}

/// A broker of the test's own, to be stopped and crashed.
#[derive(Debug)]
pub struct Broker(server::Server<Kafka>);

impl Broker {
    /// Starts one.
    ///
    /// # Panics
    /// When none can be had.
    pub async fn start() -> Self {
        // After a crash the broker may come back only when its former session has timed out (9 s by default).
        let properties = &["broker.session.timeout.ms=4000", "broker.heartbeat.interval.ms=500"];
        Self(server::Server::start(|| Kafka::new(properties, None)).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Starts one that clients reach through a proxy on this machine.
    ///
    /// # Panics
    /// When none can be had.
    pub async fn start_behind(proxy: &Proxy) -> Self {
        let recipe = || Kafka::new(&[], Some(proxy.port()));
        let broker = Self(server::Server::start(recipe).await.unwrap_or_else(|error| panic!("{error}")));
        proxy.lead_to(broker.0.port());
        broker
    }

    /// Its address, as `bootstrap.servers` takes it; the same after a restart.
    #[must_use]
    pub fn brokers(&self) -> String {
        address(self.0.port())
    }

    /// Stops it cleanly.
    pub async fn stop(&self) {
        self.0.stop().await;
    }

    /// Kills it; topics, messages and committed offsets survive.
    pub async fn crash(&self) {
        self.0.crash().await;
    }

    /// Starts it again with its data, and waits until it answers.
    pub async fn start_again(&self) {
        self.0.start_again().await;
    }

    /// Freezes it: connections stay open and nothing answers.
    pub async fn pause(&self) {
        self.0.pause().await;
    }

    /// Ends [`Self::pause`].
    pub async fn resume(&self) {
        self.0.resume().await;
    }
}

#[derive(Debug)]
struct Kafka {
    controller: Port,
    /// For Apache Kafka, not for Redpanda.
    properties: &'static [&'static str],
    /// The port that clients are sent to, if it is not the broker's own.
    advertised: Option<u16>,
}

impl Kafka {
    fn new(properties: &'static [&'static str], advertised: Option<u16>) -> Self {
        Self { controller: Port::reserve(), properties, advertised }
    }
}

impl Recipe for Kafka {
    const NAME: &'static str = "kafka";
    const PORT: u16 = 9092;
    const SIGNALS: Signals = Signals { stop: "TERM", crash: "KILL" };

    fn container(&self, port: u16) -> ContainerRequest<GenericImage> {
        let advertised = address(self.advertised.unwrap_or(port));
        GenericImage::new("redpandadata/redpanda", "v25.2.1").with_cmd([
            "redpanda",
            "start",
            "--mode",
            "dev-container",
            "--smp",
            "1",
            "--memory",
            "1G",
            "--set",
            "redpanda.auto_create_topics_enabled=false",
            "--set",
            "redpanda.group_initial_rebalance_delay=0",
            "--kafka-addr",
            "0.0.0.0:9092",
            "--advertise-kafka-addr",
            &advertised,
        ])
    }

    fn native(&self, command: &mut Command) {
        command.args(self.properties);
        if let Some(port) = self.advertised {
            command.arg(format!("advertised.listeners=PLAINTEXT://{}", address(port)));
        }
        command.env("KAFKA_CONTROLLER_PORT", self.controller.number.to_string());
        // quick to start rather than quick for ever
        command.env("KAFKA_HEAP_OPTS", "-Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1");
    }

    async fn answers(&self, port: u16) -> Result<(), String> {
        list_metadata(address(port)).await
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

async fn list_metadata(brokers: String) -> Result<(), String> {
    let listing = tokio::task::spawn_blocking(move || {
        let client: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "200").create()?;
        client.client().fetch_metadata(None, Duration::from_secs(5)).map(|metadata| metadata.brokers().len())
    });
    match listing.await.expect("listing metadata does not panic") {
        Ok(0) => Err("no broker has registered".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Has a topic take any timestamp: brokers refuse those far from now unless told otherwise.
///
/// # Panics
/// When the broker does not take the setting.
pub async fn take_any_timestamp(brokers: &str, topic: &str) {
    let any = i64::MAX.to_string();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an administrator");
    let config = AlterConfig::new(ResourceSpecifier::Topic(topic))
        .set("message.timestamp.after.max.ms", &any)
        .set("message.timestamp.before.max.ms", &any);
    let altered = admin.alter_configs([&config], &AdminOptions::new()).await.expect("an answer");
    altered.into_iter().for_each(|altered| drop(altered.expect("taken")));
}

/// Deletes the records of a partition below `offset`, as retention does.
///
/// # Panics
/// When the broker does not.
pub async fn delete_before(brokers: &str, topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an administrator");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
    let deleted = admin.delete_records(&list, &AdminOptions::new()).await.expect("an answer");
    deleted.elements().iter().for_each(|element| element.error().expect("deleted"));
}

/// Sends a message with a timestamp of the caller's, which the topic has to take: [`take_any_timestamp`].
///
/// # Panics
/// When the broker does not take it.
pub async fn send_at(brokers: &str, topic: &str, value: &[u8], timestamp: i64) {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a producer");
    // The setting takes a moment to reach the broker's log.
    crate::eventually(STEP, "the message is taken", async || {
        let record = FutureRecord::<[u8], [u8]>::to(topic).payload(value).timestamp(timestamp);
        producer.send(record, STEP).await.map(drop).map_err(|(error, _)| error.to_string())
    })
    .await;
}

/// Sends in transactions, as other producers of the same topic may.
pub struct Transactions(Arc<BaseProducer>);

/// How long a step of a transaction may take.
const STEP: Duration = Duration::from_secs(30);

impl Transactions {
    /// Of a producer of its own.
    ///
    /// # Panics
    /// When the broker does not take it.
    pub async fn new(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("transactional.id", crate::unique("id"));
        let transactions = Self(Arc::new(config.create().expect("a producer")));
        transactions.step(|producer| producer.init_transactions(STEP)).await;
        transactions
    }

    /// Begins a transaction and sends `values` to a partition.
    ///
    /// # Panics
    /// When the broker does not take them.
    pub async fn send(&self, topic: &str, partition: i32, values: &[&str]) {
        self.0.begin_transaction().expect("begun");
        for value in values {
            let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(*value);
            self.0.send(record).map_err(|(error, _)| error).expect("queued");
        }
        self.step(|producer| producer.flush(STEP)).await;
    }

    /// Commits the transaction: its marker takes one offset of each partition.
    ///
    /// # Panics
    /// When the broker does not.
    pub async fn commit(&self) {
        self.step(|producer| producer.commit_transaction(STEP)).await;
    }

    /// Aborts the transaction: no reader of committed records sees its records.
    ///
    /// # Panics
    /// When the broker does not.
    pub async fn abort(&self) {
        self.step(|producer| producer.abort_transaction(STEP)).await;
    }

    async fn step(&self, step: impl FnOnce(&BaseProducer) -> KafkaResult<()> + Send + 'static) {
        let producer = Arc::clone(&self.0);
        let stepped = tokio::task::spawn_blocking(move || step(&producer)).await;
        stepped.expect("no panic").expect("a transaction goes on");
    }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transactions")
    }
}

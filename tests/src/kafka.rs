//! A broker with the Kafka protocol: Redpanda in a container, or Apache Kafka as a native process.

use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, Producer};
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use crate::port::Port;
use crate::server::{self, Recipe};
use crate::shared::{self, Shared};
use crate::supervisor::Signals;

const VARIABLE: &str = "NETAGG_TEST_KAFKA_BROKERS";

/// How long a broker may take to create or delete a topic.
const DEADLINE: Duration = Duration::from_secs(60);

/// The address of the shared broker, for `bootstrap.servers`. The broker does not create topics by itself: use [`topic`].
///
/// # Panics
/// When no broker can be found or started.
pub async fn brokers() -> String {
    shared().await.0
}

/// The address of the shared broker, and whether it outlives this process.
async fn shared() -> (String, bool) {
    static BROKER: Shared<SharedBroker> = Shared::new();
    match shared::get(&BROKER, SharedBroker::find).await {
        SharedBroker::Given(brokers) => (brokers.clone(), true),
        SharedBroker::Started(server) => (address(server.port()), false),
    }
}

/// A topic on the shared broker that only one test uses.
#[derive(Debug)]
pub struct Topic {
    name: String,
    brokers: String,
    /// Whether the broker outlives this process. If it does, the topic is deleted when this value is dropped.
    outlives_us: bool,
}

impl Topic {
    /// The unique name of the topic.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of the broker, for `bootstrap.servers`.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}

/// Creates an empty topic with a unique name and this number of partitions. The topic is deleted when the value is dropped, or
/// together with its broker.
///
/// # Panics
/// When no broker can be found or started, or the broker does not create the topic.
pub async fn topic(partitions: i32) -> Topic {
    let (brokers, outlives_us) = shared().await;
    let topic = Topic { name: crate::unique("topic"), brokers, outlives_us };
    let admin = admin(&topic.brokers).unwrap_or_else(|error| panic!("{error}"));
    let new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(1));
    let created = admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(DEADLINE))).await;
    match created.as_deref() {
        Ok([Ok(_)]) => topic,
        other => panic!("the topic {} is not created: {other:?}", topic.name),
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        if !self.outlives_us {
            return;
        }
        let (brokers, name) = (self.brokers.clone(), self.name.clone());
        // The deletion needs its own runtime, because the runtime of the test may be dropping this value.
        let deleting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let admin = admin(&brokers).ok()?;
            runtime.block_on(admin.delete_topics(&[&name], &AdminOptions::new())).ok()
        });
        // Best effort: an error must not fail the test, because the test did not start this broker.
        let _ = deleting.join();
    }
}

fn admin(brokers: &str) -> KafkaResult<AdminClient<DefaultClientContext>> {
    ClientConfig::new().set("bootstrap.servers", brokers).create()
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

/// A broker that only one test uses. The test may stop it and crash it.
#[derive(Debug)]
pub struct Broker(server::Server<Kafka>);

impl Broker {
    /// Starts a broker.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start() -> Self {
        // After a crash the broker can register again only when its former session has timed out (9 s by default).
        let properties = &["broker.session.timeout.ms=4000", "broker.heartbeat.interval.ms=500"];
        Self(server::Server::start(|| Kafka::new(properties, None)).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Starts a broker that sends its clients to `port` of this machine. There a proxy must forward to [`Self::port`].
    ///
    /// # Panics
    /// When no broker can be started.
    pub async fn start_advertising(port: u16) -> Self {
        let recipe = || Kafka::new(&[], Some(port));
        Self(server::Server::start(recipe).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// The TCP port of the broker on this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// The address of the broker, for `bootstrap.servers`. It stays the same after a restart.
    #[must_use]
    pub fn brokers(&self) -> String {
        address(self.0.port())
    }

    /// Stops the broker cleanly.
    pub async fn stop(&self) {
        self.0.stop().await;
    }

    /// Kills the broker. Topics, messages and committed offsets survive.
    pub async fn crash(&self) {
        self.0.crash().await;
    }

    /// Starts the broker again with its data, and waits until it responds.
    pub async fn start_again(&self) {
        self.0.start_again().await;
    }

    /// Freezes the broker: connections stay open, but the broker does not respond.
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
    /// Properties of Apache Kafka; Redpanda does not get them.
    properties: &'static [&'static str],
    /// The port that the broker advertises to clients, if it differs from its own port.
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
        command.env("KAFKA_CONTROLLER_PORT", self.controller.number().to_string());
        // These options make the start fast, at the cost of throughput.
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

//! A broker that speaks Kafka's protocol: Redpanda in a container, Apache Kafka natively.

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

/// The address of the shared broker, as `bootstrap.servers` takes it. Topics do not create themselves: [`topic`].
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

/// A topic of the test's own on the shared broker.
#[derive(Debug)]
pub struct Topic {
    name: String,
    brokers: String,
    /// Whether the broker outlives this process: then the topic is deleted with this value.
    outlives_us: bool,
}

impl Topic {
    /// Its name, which no other topic has.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of its broker, as `bootstrap.servers` takes it.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}

/// A fresh, empty topic with a unique name and so many partitions. It is deleted with the value, or with its broker.
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
        // a runtime of its own: the test's may be the one that drops this value
        let deleting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let admin = admin(&brokers).ok()?;
            runtime.block_on(admin.delete_topics(&[&name], &AdminOptions::new())).ok()
        });
        // best effort: the broker is somebody else's
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

/// A broker of the test's own, to be stopped and crashed.
#[derive(Debug)]
pub struct Broker(server::Server<Kafka>);

impl Broker {
    /// Starts one.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start() -> Self {
        // After a crash the broker may come back only when its former session has timed out (9 s by default).
        let properties = &["broker.session.timeout.ms=4000", "broker.heartbeat.interval.ms=500"];
        Self(server::Server::start(|| Kafka::new(properties, None)).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Starts one that sends its clients to another port of this machine, where a proxy leads to [`Self::port`].
    ///
    /// # Panics
    /// When no broker can be started.
    pub async fn start_advertising(port: u16) -> Self {
        let recipe = || Kafka::new(&[], Some(port));
        Self(server::Server::start(recipe).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Its own TCP port on this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port()
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

//! Operations on topics that tests need and the adapter does not have.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use netagg_testkit::{eventually, unique};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Makes a topic accept any timestamp. By default, brokers reject timestamps that are far from now.
///
/// # Panics
/// When the broker rejects the setting.
pub(crate) async fn accept_any_timestamp(brokers: &str, topic: &str) {
    let any = i64::MAX.to_string();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an administrator");
    let config = AlterConfig::new(ResourceSpecifier::Topic(topic))
        .set("message.timestamp.after.max.ms", &any)
        .set("message.timestamp.before.max.ms", &any);
    let altered = admin.alter_configs([&config], &AdminOptions::new()).await.expect("a response");
    altered.into_iter().for_each(|altered| drop(altered.expect("the setting is accepted")));
}

/// Deletes the records of a partition below `offset`, like the retention of the broker.
///
/// # Panics
/// When the broker does not delete them.
pub(crate) async fn delete_before(brokers: &str, topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an administrator");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
    let deleted = admin.delete_records(&list, &AdminOptions::new()).await.expect("a response");
    deleted.elements().iter().for_each(|element| element.error().expect("deleted"));
}

/// Sends a message with this timestamp. The topic must accept it: see [`accept_any_timestamp`].
///
/// # Panics
/// When the broker does not accept the message.
pub(crate) async fn send_at(brokers: &str, topic: &str, value: &[u8], timestamp: i64) {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a producer");
    // The setting of the topic takes effect after a short time.
    eventually(STEP, "the message is accepted", async || {
        let record = FutureRecord::<[u8], [u8]>::to(topic).payload(value).timestamp(timestamp);
        producer.send(record, STEP).await.map(drop).map_err(|(error, _)| error.to_string())
    })
    .await;
}

/// A producer that sends in transactions, as other producers of the same topic may do.
pub(crate) struct Transactions(Arc<BaseProducer>);

/// How long a step of a transaction may take.
const STEP: Duration = Duration::from_secs(30);

impl Transactions {
    /// A new producer with its own transactional id.
    ///
    /// # Panics
    /// When the broker does not accept the producer.
    pub(crate) async fn new(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("transactional.id", unique("id"));
        let transactions = Self(Arc::new(config.create().expect("a producer")));
        transactions.step(|producer| producer.init_transactions(STEP)).await;
        transactions
    }

    /// Begins a transaction and sends `values` to a partition.
    ///
    /// # Panics
    /// When the broker does not accept the messages.
    pub(crate) async fn send(&self, topic: &str, partition: i32, values: &[&str]) {
        self.0.begin_transaction().expect("begun");
        for value in values {
            let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(*value);
            self.0.send(record).map_err(|(error, _)| error).expect("queued");
        }
        self.step(|producer| producer.flush(STEP)).await;
    }

    /// Commits the transaction. Its marker takes an offset of each partition.
    ///
    /// # Panics
    /// When the broker does not commit the transaction.
    pub(crate) async fn commit(&self) {
        self.step(|producer| producer.commit_transaction(STEP)).await;
    }

    /// Aborts the transaction, so that no reader of committed records sees its records.
    ///
    /// # Panics
    /// When the broker does not abort the transaction.
    pub(crate) async fn abort(&self) {
        self.step(|producer| producer.abort_transaction(STEP)).await;
    }

    async fn step(&self, step: impl FnOnce(&BaseProducer) -> KafkaResult<()> + Send + 'static) {
        let producer = Arc::clone(&self.0);
        let stepped = tokio::task::spawn_blocking(move || step(&producer)).await;
        stepped.expect("no panic").expect("the step of the transaction succeeds");
    }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transactions")
    }
}

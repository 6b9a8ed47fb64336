//! The adapters of `netagg-kafka` pass the conformance suites of their ports.

use std::sync::Arc;

use netagg_core::ports::{EventPublisher, EventSource};
use netagg_core::{OutgoingRecord, Record, testkit};
use netagg_kafka::{KafkaDeadLetters, KafkaPublisher, KafkaSource, KafkaTopics, TopicSpec};
use netagg_testkit::unique;

use super::{config, create, read, topic};

#[tokio::test]
async fn source_and_publisher_conform() {
    conform(&[]).await;
}

#[tokio::test]
async fn source_and_publisher_conform_with_eager_rebalances() {
    conform(&[("partition.assignment.strategy", "range")]).await;
}

async fn conform(options: &[(&str, &str)]) {
    let config = &super::with(config().await, options);
    testkit::event_source(async |partitions| {
        let topic = topic(config, partitions.try_into().unwrap()).await;
        let publisher: Arc<dyn EventPublisher> = Arc::new(KafkaPublisher::new(config, &topic).unwrap());
        let group = unique("group");
        let join = move || Box::new(KafkaSource::new(config, &group, &topic).unwrap()) as Box<dyn EventSource>;
        (publisher, join)
    })
    .await;
}

#[tokio::test]
async fn dead_letters_conform() {
    let config = config().await;
    let topic = unique("dlq");
    create(&config, TopicSpec { partitions: 1, ..TopicSpec::dead_letters(&topic) }).await;
    let dead_letters = KafkaDeadLetters::new(&config, &topic).unwrap();
    testkit::dead_letters(&dead_letters, async |count| {
        let mut source = KafkaSource::new(&config, &unique("group"), &topic).unwrap();
        outgoing(read(&mut source, count).await)
    })
    .await;
}

#[tokio::test]
async fn the_publisher_conforms() {
    let config = config().await;
    let topic = topic(&config, 1).await;
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    testkit::event_publisher(&publisher, async |count| {
        let mut source = KafkaSource::new(&config, &unique("group"), &topic).unwrap();
        outgoing(read(&mut source, count).await)
    })
    .await;
}

#[tokio::test]
async fn the_offsets_of_groups_conform() {
    let config = config().await;
    let (topic, group) = (topic(&config, 1).await, unique("group"));
    let publisher = Arc::new(KafkaPublisher::new(&config, &topic).unwrap());
    let source = Box::new(KafkaSource::new(&config, &group, &topic).unwrap());
    testkit::group_offsets(&KafkaTopics::new(&config).unwrap(), (&group, &topic), publisher, source).await;
}

#[tokio::test]
async fn the_administration_of_groups_conforms() {
    let config = config().await;
    let (topic, group) = (topic(&config, 1).await, unique("group"));
    let publisher = Arc::new(KafkaPublisher::new(&config, &topic).unwrap());
    let topics = KafkaTopics::new(&config).unwrap();
    testkit::group_admin(&topics, &topics, (&group, &topic), publisher).await;
}

fn outgoing(records: Vec<Record>) -> Vec<OutgoingRecord> {
    records.into_iter().map(OutgoingRecord::from).collect()
}

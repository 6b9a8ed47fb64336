//! The behaviours of the ports.

use std::sync::Arc;

use netagg_core::ports::{EventPublisher, EventSource};
use netagg_core::{OutgoingRecord, testkit};
use netagg_kafka::{KafkaDeadLetters, KafkaPublisher, KafkaSource, TopicSpec};
use netagg_tests::unique;

use super::{config, create, read, topic};

#[tokio::test]
async fn source_and_publisher_conform() {
    conform(&[]).await;
}

#[tokio::test]
async fn they_conform_with_eager_rebalances_too() {
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
    let letters = KafkaDeadLetters::new(&config, &topic).unwrap();
    testkit::dead_letters(&letters, async |count| {
        let mut source = KafkaSource::new(&config, &unique("group"), &topic).unwrap();
        let records = read(&mut source, count).await;
        let outgoing = |record: netagg_core::Record| OutgoingRecord {
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        records.into_iter().map(outgoing).collect()
    })
    .await;
}

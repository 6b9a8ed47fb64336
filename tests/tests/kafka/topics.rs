//! Creating, listing and describing topics.

use netagg_core::causes;
use netagg_core::ports::EventPublisher;
use netagg_kafka::{Creation, KafkaConfig, KafkaPublisher, KafkaTopics, TopicListing, TopicSpec};
use netagg_testkit::{eventually, kafka, unique};

use super::{DEADLINE, config, record};

#[tokio::test]
async fn a_topic_is_created_once_and_described() {
    let config = config().await;
    let topics = KafkaTopics::new(&config).unwrap();
    let spec = TopicSpec::events(unique("events"));
    assert_eq!(topics.describe(&spec.name).await.unwrap(), None);
    assert_eq!(topics.lag("group", &spec.name).await.unwrap(), None);
    assert_eq!(topics.create(&spec).await.unwrap(), Creation::Created);
    assert_eq!(topics.create(&spec).await.unwrap(), Creation::Existed);
    // The broker elects the leaders of the partitions after some time.
    let described = eventually(DEADLINE, "the topic", async || match topics.describe(&spec.name).await {
        Ok(Some(topic)) if topic.partitions.len() == 8 => Ok(topic),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(described.max_message_bytes, Some(spec.max_message_bytes));
    assert!(topics.list().await.unwrap().contains(&TopicListing { name: spec.name.clone(), partitions: 8 }));

    let publisher = KafkaPublisher::new(&config, &spec.name).unwrap();
    publisher.publish((0..100).map(|number| record(number, 0)).collect()).await.unwrap();
    let described = topics.describe(&spec.name).await.unwrap().unwrap();
    assert_eq!(described.partitions.iter().map(|partition| partition.high - partition.low).sum::<i64>(), 100);
    for (number, partition) in (0..).zip(&described.partitions) {
        assert_eq!((partition.number, partition.low), (number, 0));
        assert!(partition.leader.is_some_and(|leader| partition.in_sync.contains(&leader)));
    }
    let lag = topics.lag(&unique("group"), &spec.name).await.unwrap().unwrap();
    assert!(lag.iter().all(|lag| lag.committed.is_none()));
    assert_eq!(lag.iter().map(|lag| lag.lag).sum::<i64>(), 100);
}

#[tokio::test]
async fn an_unavailable_broker_is_a_retryable_error() {
    let broker = kafka::Broker::start().await;
    let topics = KafkaTopics::new(&KafkaConfig::new(broker.brokers())).unwrap();
    broker.crash().await;
    let spec = TopicSpec::events("events");
    let (listed, created, members) = tokio::join!(topics.list(), topics.create(&spec), topics.members("group"));
    for error in [listed.map(drop).unwrap_err(), created.map(drop).unwrap_err(), members.map(drop).unwrap_err()] {
        assert!(error.is_retryable(), "{error:?}");
        let causes = causes(&error);
        assert_eq!(causes.len(), 1, "no reason is repeated: {causes:?}");
        assert_eq!(causes[0].matches(&broker.brokers()).count(), 1, "{causes:?}");
    }
}

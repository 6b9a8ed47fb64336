//! Outages of the broker.

use std::collections::BTreeSet;

use netagg_core::ports::{EventPublisher, EventSource};
use netagg_kafka::{KafkaConfig, KafkaPublisher, KafkaSource};
use netagg_testkit::{eventually, kafka, unique};

use super::{DEADLINE, is_unavailable, numbers, positions, read, record, topic, with};

#[tokio::test]
async fn sources_and_publishers_survive_a_restart_of_the_broker() {
    let broker = kafka::Broker::start().await;
    let config = KafkaConfig::new(broker.brokers());
    let (topic, group) = (topic(&config, 4).await, unique("group"));
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    let mut source = KafkaSource::new(&config, &group, &topic).unwrap();
    let health = source.health();
    publisher.publish((0..100).map(|number| record(number, 0)).collect()).await.unwrap();
    let mut seen = read(&mut source, 100).await;
    assert_eq!(health.problem(), None);

    broker.stop().await;
    eventually(DEADLINE, "the outage is noticed", async || match health.problem() {
        Some(_) => Ok(()),
        None => Err("no problem yet".to_owned()),
    })
    .await;
    let late_source = KafkaSource::new(&config, &unique("group"), &topic);
    let publishing = publisher.publish((100..200).map(|number| record(number, 0)).collect());
    let restarting = broker.start_again();
    let (published, ()) = tokio::join!(publishing, restarting);
    published.unwrap();

    while numbers(&seen).len() < 200 {
        seen.extend(read(&mut source, 1).await);
    }
    source.commit(&positions(&seen)).await.unwrap();
    assert_eq!(
        numbers(&read(&mut late_source.unwrap(), 200).await).len(),
        200,
        "a source that was created during the outage also works"
    );
    eventually(DEADLINE, "ready", async || match health.problem() {
        None => Ok(()),
        problem => Err(format!("{problem:?}")),
    })
    .await;
    source.close().await.unwrap();
}

#[tokio::test]
async fn without_a_broker_closing_and_publishing_end_with_an_error() {
    let broker = kafka::Broker::start().await;
    let config = KafkaConfig::new(broker.brokers());
    let (topic, group) = (topic(&config, 1).await, unique("group"));
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    let impatient = with(config.clone(), &[("message.timeout.ms", "1000")]);
    let impatient = KafkaPublisher::new(&impatient, &topic).unwrap();
    publisher.publish((0..10).map(|number| record(number, 0)).collect()).await.unwrap();
    let mut source = KafkaSource::new(&config, &group, &topic).unwrap();
    let records = read(&mut source, 10).await;

    broker.crash().await;
    source.commit(&positions(&records)).await.unwrap();
    let closed = tokio::time::timeout(DEADLINE, source.close()).await.expect("closing ends");
    assert!(is_unavailable(&closed.unwrap_err()));
    let published = tokio::time::timeout(DEADLINE, impatient.publish(vec![record(10, 0)])).await;
    let error = published.expect("publishing ends").unwrap_err();
    assert!(is_unavailable(&error) && error.is_retryable(), "{error}");

    broker.start_again().await;
    publisher.publish(vec![record(10, 0)]).await.unwrap();
    let mut next = KafkaSource::new(&config, &group, &topic).unwrap();
    let mut seen = BTreeSet::new();
    while !seen.contains(&10) {
        seen.extend(numbers(&read(&mut next, 1).await));
    }
    // The commit may or may not have reached the broker before the crash.
    assert!(seen == (0..=10).collect() || seen == BTreeSet::from([10]), "{seen:?}");
    next.close().await.unwrap();
}

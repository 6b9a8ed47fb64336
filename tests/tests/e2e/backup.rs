//! A database that was restored from a backup is older than the offsets that the groups have committed.

use std::time::Duration;

use netagg_testkit::postgres;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::installation::Installation;
use crate::support::programs::Process;

fn start(installation: &Installation) -> [Process; 2] {
    ["ingestor", "aggregator"].map(|service| installation.start(service))
}

async fn stop(services: [Process; 2]) {
    for mut service in services {
        service.terminate();
        assert_eq!(service.code(Duration::from_secs(30)).await, 0, "{}", service.stderr());
    }
}

/// Resets the offsets of a group without members to the start of the topic, like the tools of the broker.
fn reset_offsets(installation: &Installation, group: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", installation.variable("KAFKA_BROKERS"))
        .set("group.id", installation.variable(group))
        .create()
        .expect("a consumer");
    let mut start = TopicPartitionList::new();
    for partition in 0..8 {
        let topic = installation.variable("KAFKA_TOPIC");
        start.add_partition_offset(topic, partition, Offset::Offset(0)).expect("a position");
    }
    consumer.commit(&start, CommitMode::Sync).expect("the offsets are reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_catches_up_with_the_topic() {
    let installation = Installation::new().await;
    let services = start(&installation);
    let before = installation.load().await;
    installation.drained_and_exact(before).await;
    stop(services).await;
    let backup = postgres::copy_of(installation.variable("DATABASE_URL")).await;
    let services = start(&installation);
    let all = before + installation.load().await;
    installation.drained_and_exact(all).await;
    stop(services).await;

    let mut restored =
        Installation::on(backup.url(), installation.variable("KAFKA_BROKERS"), installation.variable("REDIS_URL"));
    restored.share(&installation);
    restored.drained_and_exact(before).await;
    let audit = restored.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 1, "the events since the backup are lost: {}{}", audit.stdout, audit.stderr);
    for group in ["KAFKA_GROUP_ID_INGESTOR", "KAFKA_GROUP_ID_AGGREGATOR"] {
        reset_offsets(&installation, group);
    }
    let _services = start(&restored);
    restored.drained_and_exact(all).await;
    let audit = restored.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}{}", audit.stdout, audit.stderr);
}

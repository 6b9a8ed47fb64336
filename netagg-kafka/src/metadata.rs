//! Requests for partitions and offsets. A broker answers them once partitions have their leaders, and groups have their
//! coordinators.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// How long one request may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// The pause before the next request while a partition has no leader or a group has no coordinator.
pub(crate) const ELECTION_PAUSE: Duration = Duration::from_millis(100);

/// The errors of a group that has no coordinator yet.
pub(crate) const NO_COORDINATOR: [RDKafkaErrorCode; 3] = [
    RDKafkaErrorCode::NotCoordinator,
    RDKafkaErrorCode::CoordinatorNotAvailable,
    RDKafkaErrorCode::CoordinatorLoadInProgress,
];

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct PartitionDescription {
    /// Its number, from 0.
    pub number: i32,
    /// The broker that is its leader; `None` while it has no leader.
    pub leader: Option<i32>,
    /// The brokers that have a copy of it.
    pub replicas: Vec<i32>,
    /// The brokers whose copy is complete.
    pub in_sync: Vec<i32>,
    /// The first offset that the broker still has.
    pub low: i64,
    /// The offset that the next message gets.
    pub high: i64,
}

/// The offsets that the consumer's group has committed. On a new broker, the first request creates the broker's topic of
/// offsets. Until this topic has its leaders, there is no coordinator.
pub(crate) fn committed(consumer: &BaseConsumer, list: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    after_election(&NO_COORDINATOR, || consumer.committed_offsets(list.clone(), REQUEST))
}

/// The first offset of a partition, and the offset of its next message. A partition has no leader at first if it was just
/// created, or if its broker has just restarted.
fn watermarks<C: ClientContext>(client: &Client<C>, topic: &str, number: i32) -> KafkaResult<(i64, i64)> {
    const NO_LEADER: [RDKafkaErrorCode; 2] =
        [RDKafkaErrorCode::NotLeaderForPartition, RDKafkaErrorCode::LeaderNotAvailable];
    after_election(&NO_LEADER, || client.fetch_watermarks(topic, number, REQUEST))
}

/// Calls `ask` again while its error is one of `not_yet`, for at most the time limit of one request. Blocks the thread.
pub(crate) fn after_election<T>(not_yet: &[RDKafkaErrorCode], ask: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(KafkaError::MetadataFetch(code) | KafkaError::AdminOp(code))
                if not_yet.contains(&code) && begun.elapsed() < REQUEST =>
            {
                std::thread::sleep(ELECTION_PAUSE);
            }
            result => return result,
        }
    }
}

/// The partitions of `topic`; `None` if the topic does not exist. Blocks the thread.
pub(crate) fn partitions<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
) -> KafkaResult<Option<Vec<PartitionDescription>>> {
    // A request for only this topic could create it.
    let metadata = client.fetch_metadata(None, REQUEST)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    let describe = |partition: &rdkafka::metadata::MetadataPartition| {
        let (low, high) = watermarks(client, topic, partition.id())?;
        Ok(PartitionDescription {
            number: partition.id(),
            leader: Some(partition.leader()).filter(|leader| *leader >= 0),
            replicas: partition.replicas().to_vec(),
            in_sync: partition.isr().to_vec(),
            low,
            high,
        })
    };
    let mut partitions = found.partitions().iter().map(describe).collect::<KafkaResult<Vec<_>>>()?;
    partitions.sort_by_key(|partition| partition.number);
    Ok(Some(partitions))
}

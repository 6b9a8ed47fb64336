//! Questions about partitions and offsets, which a broker answers once partitions and groups have their leaders.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// How long one request may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// How long to wait before a leader or a coordinator is looked for again.
pub(crate) const ELECTION_PAUSE: Duration = Duration::from_millis(100);

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct PartitionDescription {
    /// Its number, from 0.
    pub number: i32,
    /// The broker that leads it; `None` while there is none.
    pub leader: Option<i32>,
    /// The brokers that have a copy.
    pub replicas: Vec<i32>,
    /// Those whose copy is complete.
    pub in_sync: Vec<i32>,
    /// The first offset that is still there.
    pub low: i64,
    /// The offset that the next message gets.
    pub high: i64,
}

/// What the consumer's group has committed. The first one to ask makes the broker's topic of offsets; until that has its
/// leaders, there is no coordinator.
pub(crate) fn committed(consumer: &BaseConsumer, list: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    const NO_COORDINATOR: [RDKafkaErrorCode; 3] = [
        RDKafkaErrorCode::NotCoordinator,
        RDKafkaErrorCode::CoordinatorNotAvailable,
        RDKafkaErrorCode::CoordinatorLoadInProgress,
    ];
    after_election(&NO_COORDINATOR, || consumer.committed_offsets(list.clone(), REQUEST))
}

/// The first offset of a partition and the next one. One that was just made, or whose broker is coming back, has no
/// leader at first.
fn watermarks<C: ClientContext>(client: &Client<C>, topic: &str, number: i32) -> KafkaResult<(i64, i64)> {
    const NO_LEADER: [RDKafkaErrorCode; 2] =
        [RDKafkaErrorCode::NotLeaderForPartition, RDKafkaErrorCode::LeaderNotAvailable];
    after_election(&NO_LEADER, || client.fetch_watermarks(topic, number, REQUEST))
}

/// Asks again while the answer is one of `not_yet`, for as long as one request may take.
fn after_election<T>(not_yet: &[RDKafkaErrorCode], ask: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(KafkaError::MetadataFetch(code)) if not_yet.contains(&code) && begun.elapsed() < REQUEST => {
                std::thread::sleep(ELECTION_PAUSE);
            }
            result => return result,
        }
    }
}

/// The partitions of `topic`; `None` if it is not there. Blocks.
pub(crate) fn partitions<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
) -> KafkaResult<Option<Vec<PartitionDescription>>> {
    // asking for the one topic could make it
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

//! The administration of topics and consumer groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use netagg_core::Error;
use netagg_core::ports::PartitionLag;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use crate::bounded_reader::BoundedReader;
use crate::error::{self, KAFKA};
use crate::metadata::{
    ELECTION_PAUSE, NO_COORDINATOR, PartitionDescription, REQUEST, after_election, committed, partitions,
};
use crate::{ConfigError, KafkaConfig, log};

/// The maximum size of an event's value.
const EVENT_BYTES: u64 = 1 << 20;
/// The additional size for a message's key, headers and framing.
const OVERHEAD: u64 = 64 << 10;

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// Administers topics.
pub struct KafkaTopics {
    admin: Arc<AdminClient<Context>>,
    config: KafkaConfig,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions the topic gets.
    pub partitions: i32,
    /// How many copies each partition gets; `None` uses the default of the broker.
    pub replication: Option<i32>,
    /// The maximum size of a batch, and so of a message.
    pub max_message_bytes: u64,
    /// Whether the broker keeps only the last message of each key, for ever.
    pub is_compacted: bool,
}

impl TopicSpec {
    /// A topic of events: 8 partitions, for events of up to 1 MiB.
    pub fn events(name: impl Into<String>) -> Self {
        let max_message_bytes = EVENT_BYTES + OVERHEAD;
        Self { name: name.into(), partitions: 8, replication: None, max_message_bytes, is_compacted: false }
    }

    /// The dead-letter topic of such events. Its messages may be larger, because headers with the reason are added.
    pub fn dead_letters(name: impl Into<String>) -> Self {
        Self { max_message_bytes: EVENT_BYTES + 2 * OVERHEAD, ..Self::events(name) }
    }

    /// A topic of markers. A marker counts until a newer marker has the same key.
    pub(crate) fn markers(name: impl Into<String>) -> Self {
        Self { partitions: 1, is_compacted: true, ..Self::events(name) }
    }
}

/// The result of the creation of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Creation {
    /// The topic was created.
    Created,
    /// A topic of this name already exists, and was not changed.
    Existed,
}

/// A short description of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
}

/// The full description of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// The maximum size of a batch; `None` if the broker does not report it.
    pub max_message_bytes: Option<u64>,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

impl KafkaTopics {
    /// A client that connects by itself, with the first request.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(config: &KafkaConfig) -> Result<Self, ConfigError> {
        let admin = Arc::new(config.admin().create_with_context(Context)?);
        Ok(Self { admin, config: config.clone() })
    }

    /// Creates a topic, unless a topic of this name exists. Waits until clients find the new topic with all its partitions.
    ///
    /// # Errors
    /// Retryable while the broker is unavailable or refuses access.
    pub async fn create(&self, topic: &TopicSpec) -> Result<Creation, Error> {
        let size = topic.max_message_bytes.to_string();
        let replication = TopicReplication::Fixed(topic.replication.unwrap_or(-1));
        let mut new = NewTopic::new(&topic.name, topic.partitions, replication).set(MAX_MESSAGE_BYTES, &size);
        if topic.is_compacted {
            new = new.set("cleanup.policy", "compact");
        }
        let created = self.admin.create_topics([&new], &options()).await;
        let created = created.map_err(|error| self.explain(error, &topic.name))?;
        match created.into_iter().next() {
            Some(Ok(_)) => {
                self.await_leaders(topic).await?;
                Ok(Creation::Created)
            }
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Creation::Existed),
            Some(Err((_, code))) => Err(self.explain(KafkaError::AdminOp(code), &topic.name)),
            None => Err(Error::internal(KAFKA, "the broker does not report whether it created the topic")),
        }
    }

    /// Waits until each partition of a new topic has its leader: the broker answers before all brokers know the topic.
    async fn await_leaders(&self, topic: &TopicSpec) -> Result<(), Error> {
        let TopicSpec { name, partitions, .. } = topic.clone();
        self.blocking(&topic.name, move |client| {
            let begun = Instant::now();
            loop {
                let metadata = client.fetch_metadata(None, REQUEST)?;
                let found = metadata.topics().iter().find(|found| found.name() == name);
                let leaders = found
                    .map_or(0, |found| found.partitions().iter().filter(|partition| partition.leader() >= 0).count());
                if leaders >= partitions.max(1) as usize {
                    return Ok(());
                }
                if begun.elapsed() > REQUEST {
                    return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable));
                }
                std::thread::sleep(ELECTION_PAUSE);
            }
        })
        .await
    }

    /// All topics except the broker's internal topics, by name.
    ///
    /// # Errors
    /// Retryable while the broker is unavailable or refuses access.
    pub async fn list(&self) -> Result<Vec<TopicListing>, Error> {
        let mut topics = self
            .blocking("", |client| {
                let metadata = client.fetch_metadata(None, REQUEST)?;
                let own = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
                let listing = |topic: &MetadataTopic| TopicListing {
                    name: topic.name().to_owned(),
                    partitions: topic.partitions().len(),
                };
                Ok(own.map(listing).collect::<Vec<_>>())
            })
            .await?;
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    /// The full description of a topic; `None` if the topic does not exist.
    ///
    /// # Errors
    /// Retryable while the broker is unavailable or refuses access.
    pub async fn describe(&self, topic: &str) -> Result<Option<TopicDescription>, Error> {
        let name = topic.to_owned();
        let Some(partitions) = self.blocking(topic, move |client| partitions(client, &name)).await? else {
            return Ok(None);
        };
        let configs = self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()).await;
        let configs = configs.map_err(|error| self.explain(error, topic))?;
        let size =
            configs.iter().flatten().find_map(|config| config.get(MAX_MESSAGE_BYTES)?.value.as_ref()?.parse().ok());
        Ok(Some(TopicDescription { name: topic.to_owned(), max_message_bytes: size, partitions }))
    }

    /// How many members `group` has. Members are consumers that the broker considers alive.
    ///
    /// # Errors
    /// Retryable while the broker is unavailable or refuses access.
    pub async fn members(&self, group: &str) -> Result<usize, Error> {
        let name = group.to_owned();
        self.blocking("", move |client| {
            let groups = client.fetch_group_list(Some(&name), REQUEST)?;
            Ok(groups.groups().iter().filter(|group| group.name() == name).map(|group| group.members().len()).sum())
        })
        .await
    }

    /// The lag of `group` in `topic`, by partition; `None` if the topic does not exist. The lag of a partition is 0 if none
    /// of its remaining offsets holds a record.
    ///
    /// # Errors
    /// Retryable while the broker is unavailable or refuses access.
    pub async fn lag(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        let Some(mut lag) = self.lag_in_offsets(group, topic).await? else { return Ok(None) };
        self.forget_empty(topic, &mut lag).await?;
        Ok(Some(lag))
    }

    /// Like [`lag`](Self::lag), but counts the offsets whether or not they hold a record, and reads no records. The
    /// committed offsets are read after the ends of the partitions.
    ///
    /// # Errors
    /// Retryable while the broker is unavailable or refuses access.
    pub async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        let consumer: BaseConsumer =
            self.config.consumer(group).create().map_err(|error: KafkaError| self.explain(error, topic))?;
        let name = topic.to_owned();
        self.blocking(topic, move |client| {
            let Some(partitions) = partitions(client, &name)? else { return Ok(None) };
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for partition in &partitions {
                list.add_partition(&name, partition.number);
            }
            let committed = committed(&consumer, &list)?;
            let lag = |PartitionDescription { number, low, high, .. }| {
                let committed = match committed.find_partition(&name, number).map(|found| found.offset()) {
                    Some(Offset::Offset(offset)) => Some(offset),
                    _ => None,
                };
                // Deleted records cannot be read any more.
                let lag = (high - committed.unwrap_or(low).max(low)).max(0);
                PartitionLag { number, committed, high, lag }
            };
            Ok(Some(partitions.into_iter().map(lag).collect()))
        })
        .await
    }

    /// Commits `offsets` of `topic` for `group`, which has no members: pairs of a partition and its next offset.
    ///
    /// # Errors
    /// If the group has members. Retryable while the broker is unavailable or refuses access.
    pub async fn commit_group(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Error> {
        let consumer: BaseConsumer =
            self.config.consumer(group).create().map_err(|error: KafkaError| self.explain(error, topic))?;
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for &(partition, offset) in offsets {
            list.add_partition_offset(topic, partition, Offset::Offset(offset))
                .map_err(|error| self.explain(error, topic))?;
        }
        self.blocking(topic, move |_| {
            // The first request makes sure that the group has its coordinator.
            committed(&consumer, &list)?;
            consumer.commit(&list, CommitMode::Sync)
        })
        .await
    }

    /// Deletes `group`, which has no members, with its committed offsets. A group that does not exist is no error.
    ///
    /// # Errors
    /// If the group has members. Retryable while the broker is unavailable or refuses access.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let (admin, runtime, group) = (Arc::clone(&self.admin), Handle::current(), group.to_owned());
        let delete = move || {
            let deleted = runtime.block_on(admin.delete_groups(&[group.as_str()], &options()))?;
            match deleted.into_iter().next() {
                None | Some(Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound))) => Ok(()),
                Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
            }
        };
        self.blocking("", move |_| after_election(&NO_COORDINATOR, delete)).await
    }

    /// Sets the lag of a partition to 0 if none of its remaining offsets holds a record. A transaction ends with a marker.
    /// If the marker is the last offset of a partition, no reader ever gets past it.
    async fn forget_empty(&self, topic: &str, lag: &mut [PartitionLag]) -> Result<(), Error> {
        let starts: BTreeMap<_, _> =
            lag.iter().filter(|lag| lag.lag > 0).map(|lag| (lag.number, lag.high - lag.lag)).collect();
        if starts.is_empty() {
            return Ok(());
        }
        let Some(mut reader) = BoundedReader::open(&self.config, topic).await? else { return Ok(()) };
        let reading = tokio::task::spawn_blocking(move || {
            let mut holding = BTreeSet::new();
            reader.start_from(&starts);
            reader.read(|record| {
                holding.insert(record.partition.number);
                false
            })?;
            Ok::<_, Error>(holding)
        });
        let holding = reading.await.map_err(|error| Error::internal(KAFKA, error))??;
        for lag in lag.iter_mut().filter(|lag| !holding.contains(&lag.number)) {
            lag.lag = 0;
        }
        Ok(())
    }

    fn explain(&self, error: KafkaError, topic: &str) -> Error {
        error::of(error, self.config.brokers(), topic)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        topic: &str,
        ask: impl FnOnce(&Client<Context>) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        let admin = Arc::clone(&self.admin);
        let answer = tokio::task::spawn_blocking(move || ask(admin.inner())).await;
        answer.map_err(|error| Error::internal(KAFKA, error))?.map_err(|error| self.explain(error, topic))
    }
}

impl fmt::Debug for KafkaTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaTopics").field("config", &self.config).finish_non_exhaustive()
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST))
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The request that fails returns an error to its caller.
        tracing::debug!(%error, reason, "kafka admin");
    }
}

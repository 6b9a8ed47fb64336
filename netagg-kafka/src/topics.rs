//! Makes topics and looks at them.

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

use crate::bounded_reader::BoundedReader;
use crate::error::{self, KAFKA};
use crate::metadata::{ELECTION_PAUSE, PartitionDescription, REQUEST, committed, partitions};
use crate::{ConfigError, KafkaConfig, log};

/// The largest value of an event.
const EVENT_BYTES: u64 = 1 << 20;
/// Room for a message's key, headers and framing.
const ROOM: u64 = 64 << 10;

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// Administers topics.
pub struct KafkaTopics {
    admin: Arc<AdminClient<Context>>,
    config: KafkaConfig,
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it gets.
    pub partitions: i32,
    /// How many copies of each; `None` leaves it to the broker.
    pub replication: Option<i32>,
    /// The size of the largest batch, and so of a message.
    pub max_message_bytes: u64,
    /// Whether only the last message of each key is kept, for ever.
    pub is_compacted: bool,
}

impl TopicSpec {
    /// A topic of events: 8 partitions, and room for events of 1 MiB.
    pub fn events(name: impl Into<String>) -> Self {
        let max_message_bytes = EVENT_BYTES + ROOM;
        Self { name: name.into(), partitions: 8, replication: None, max_message_bytes, is_compacted: false }
    }

    /// The topic of dead letters of such events: also room for the headers that tell why.
    pub fn dead_letters(name: impl Into<String>) -> Self {
        Self { max_message_bytes: EVENT_BYTES + 2 * ROOM, ..Self::events(name) }
    }

    /// A topic of marks, each of which counts until there is another one of its key.
    pub(crate) fn markers(name: impl Into<String>) -> Self {
        Self { partitions: 1, is_compacted: true, ..Self::events(name) }
    }
}

/// What became of a topic to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Creation {
    /// It was made.
    Created,
    /// One of this name is there; it was left as it is.
    Existed,
}

/// A topic, in brief.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
}

/// A topic, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// The size of the largest batch it takes; `None` if the broker does not tell.
    pub max_message_bytes: Option<u64>,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

impl KafkaTopics {
    /// Connects by itself, with the first request.
    ///
    /// # Errors
    /// When librdkafka does not take the configuration.
    pub fn new(config: &KafkaConfig) -> Result<Self, ConfigError> {
        let admin = Arc::new(config.admin().create_with_context(Context)?);
        Ok(Self { admin, config: config.clone() })
    }

    /// Makes a topic, unless there is one of this name, and waits until clients find it with all its partitions.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
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
            None => Err(Error::internal(KAFKA, "the broker does not say whether it made the topic")),
        }
    }

    /// Waits until each partition of a topic that was made has its leader: brokers answer before they all know of it.
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

    /// All topics but the broker's own, by name.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
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

    /// What there is to know about a topic; `None` if it is not there.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
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

    /// How many members `group` has: consumers that the broker takes for alive.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
    pub async fn members(&self, group: &str) -> Result<usize, Error> {
        let name = group.to_owned();
        self.blocking("", move |client| {
            let groups = client.fetch_group_list(Some(&name), REQUEST)?;
            Ok(groups.groups().iter().filter(|group| group.name() == name).map(|group| group.members().len()).sum())
        })
        .await
    }

    /// How far `group` has got in `topic`, by partition; `None` if the topic is not there.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
    pub async fn lag(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        let Some(mut lag) = self.lag_in_offsets(group, topic).await? else { return Ok(None) };
        self.forget_empty(topic, &mut lag).await?;
        Ok(Some(lag))
    }

    /// As [`lag`](Self::lag), of offsets whether or not they hold a record: nothing is read for it. How far the group has
    /// got is as of after where the partitions end.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
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
                // what has been deleted cannot be read any more
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
    /// If the group has members. Retryable while the broker is away or refuses access.
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
    /// If the group has members. Retryable while the broker is away or refuses access.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let deleted = self.admin.delete_groups(&[group], &options()).await.map_err(|error| self.explain(error, ""))?;
        match deleted.into_iter().next() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound))) => Ok(()),
            Some(Err((_, code))) => Err(self.explain(KafkaError::AdminOp(code), "")),
        }
    }

    /// Clears the lag where none of the offsets before the group holds a record. A transaction ends with a mark, and
    /// where that is a partition's last offset no reader ever gets past it.
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
        // the request that fails tells its caller
        tracing::debug!(%error, reason, "kafka admin");
    }
}

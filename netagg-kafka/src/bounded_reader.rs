//! Reads a topic once, up to the offsets it has at the start.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netagg_core::{Error, PartitionId, Record, Timestamp};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::error::{self, KAFKA};
use crate::metadata::{self, REQUEST};
use crate::{ConfigError, KafkaConfig, log, record};

/// The maximum time of one poll.
const POLL: Duration = Duration::from_millis(100);
/// How long a broker may send nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// Reads the offsets that a topic has when the reader is opened. It uses a consumer without a group. Memory is bounded by the
/// records that librdkafka fetches ahead.
///
/// The reader skips records of open and aborted transactions.
pub(crate) struct BoundedReader {
    consumer: BaseConsumer<Context>,
    brokers: Arc<str>,
    topic: Arc<str>,
    /// The offsets that are still to read, by partition. No range is empty.
    spans: BTreeMap<i32, Range<i64>>,
}

impl BoundedReader {
    /// A reader of all offsets that `topic` has now; `None` if the topic does not exist.
    pub(crate) async fn open(config: &KafkaConfig, topic: &str) -> Result<Option<Self>, Error> {
        let consumer: BaseConsumer<Context> = config
            .reader()
            .create_with_context(Context)
            .map_err(|error| Error::internal(KAFKA, ConfigError::from(error)))?;
        let (brokers, topic): (Arc<str>, Arc<str>) = (config.brokers().into(), topic.into());
        let open = move || {
            let partitions = metadata::partitions(consumer.client(), &topic);
            let partitions = partitions.map_err(|error| error::of(error, &brokers, &topic))?;
            let Some(partitions) = partitions else { return Ok(None) };
            let spans = partitions.into_iter().map(|partition| (partition.number, partition.low..partition.high));
            let mut reader = Self { spans: spans.collect(), consumer, brokers, topic };
            reader.forget_empty();
            Ok(Some(reader))
        };
        tokio::task::spawn_blocking(open).await.map_err(|error| Error::internal(KAFKA, error))?
    }

    /// Starts each partition at the first record whose timestamp is not before `since`.
    pub(crate) fn start_at(&mut self, since: Timestamp) -> Result<(), Error> {
        self.find(since).map_err(|error| error::of(error, &self.brokers, &self.topic))
    }

    fn find(&mut self, since: Timestamp) -> KafkaResult<()> {
        let mut wanted = TopicPartitionList::with_capacity(self.spans.len());
        for partition in self.spans.keys() {
            // Negative values have other meanings.
            wanted.add_partition_offset(&self.topic, *partition, Offset::Offset(since.as_millis().max(0)))?;
        }
        let found = self.consumer.offsets_for_times(wanted, REQUEST)?;
        for element in found.elements() {
            element.error()?;
            if let Some(span) = self.spans.get_mut(&element.partition()) {
                span.start = match element.offset() {
                    Offset::Offset(offset) => span.start.max(offset),
                    _ => span.end,
                };
            }
        }
        self.forget_empty();
        Ok(())
    }

    /// Reads only `offsets` of `partition`.
    pub(crate) fn narrow(&mut self, partition: i32, offsets: Range<i64>) {
        self.spans.retain(|number, _| *number == partition);
        for span in self.spans.values_mut() {
            *span = span.start.max(offsets.start)..span.end.min(offsets.end);
        }
        self.forget_empty();
    }

    /// Reads only the partitions in `starts`, each from its offset there.
    pub(crate) fn start_from(&mut self, starts: &BTreeMap<i32, i64>) {
        self.spans.retain(|number, span| {
            let start = starts.get(number);
            span.start = start.map_or(span.end, |start| span.start.max(*start));
            !span.is_empty()
        });
    }

    fn forget_empty(&mut self) {
        self.spans.retain(|_, span| !span.is_empty());
    }

    /// Calls `each` with each record. The records of a partition come in order, until `each` returns `false` for the
    /// partition. Blocks the thread.
    ///
    /// # Errors
    /// When the broker rejects a request, or has sent nothing for 30 s.
    pub(crate) fn read(mut self, mut each: impl FnMut(Record) -> bool) -> Result<(), Error> {
        self.assign().map_err(|error| error::of(error, &self.brokers, &self.topic))?;
        let mut heard = Instant::now();
        let mut last_error = None;
        while !self.spans.is_empty() {
            let has_answered = match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let (number, offset) = (message.partition(), message.offset());
                    if let Some(span) = self.spans.get(&number) {
                        let wants_more = span.contains(&offset)
                            && each(record::copy(&message, PartitionId::new(Arc::clone(&self.topic), number)));
                        if !wants_more || offset + 1 >= span.end {
                            self.spans.remove(&number);
                        }
                    }
                    true
                }
                // The last offsets of a partition may hold no record.
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    self.spans.remove(&number);
                    true
                }
                Some(Err(error)) => match error::of(error, &self.brokers, &self.topic) {
                    error @ Error::Unavailable { .. } => {
                        last_error = Some(error);
                        false
                    }
                    error => return Err(error),
                },
                None => false,
            };
            if has_answered {
                heard = Instant::now();
            } else if heard.elapsed() > SILENCE {
                return Err(last_error.unwrap_or_else(|| error::silence(&self.brokers)));
            }
        }
        Ok(())
    }

    fn assign(&self) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(self.spans.len());
        for (partition, span) in &self.spans {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(span.start))?;
        }
        self.consumer.assign(&list)
    }
}

impl fmt::Debug for BoundedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedReader").field("topic", &self.topic).field("spans", &self.spans).finish_non_exhaustive()
    }
}

struct Context;

impl ConsumerContext for Context {}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The read that fails returns an error to its caller.
        tracing::debug!(%error, reason, "kafka reader");
    }
}

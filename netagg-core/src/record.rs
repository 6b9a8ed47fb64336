//! Records of a partitioned log, and positions in it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::time::Timestamp;

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct PartitionId {
    /// The name of the topic. All partitions of a topic can share the text.
    pub topic: Arc<str>,
    /// The number of the partition, from 0.
    pub number: i32,
}

impl PartitionId {
    /// Partition `number` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, number: i32) -> Self {
        Self { topic: topic.into(), number }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

/// The position of a record in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RecordPosition {
    /// The partition of the record.
    pub partition: PartitionId,
    /// The offset of the record in the partition.
    pub offset: i64,
}

impl fmt::Display for RecordPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// The timestamp that the producer or the broker gave to a record.
///
/// A log stores the timestamp as a number of milliseconds. If a producer sends another unit, such as microseconds or
/// nanoseconds, the number is out of the range of the calendar. This type keeps such a number, so that the dead letter shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum RecordTimestamp {
    /// An instant of the years 0001 to 9999.
    Instant(Timestamp),
    /// A number of milliseconds since 1970 that is outside of these years.
    OutOfRange(i64),
}

impl RecordTimestamp {
    /// The timestamp `millis` milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        match Timestamp::from_millis(millis) {
            Some(instant) => Self::Instant(instant),
            None => Self::OutOfRange(millis),
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, rounded down.
    pub const fn as_millis(self) -> i64 {
        match self {
            Self::Instant(instant) => instant.as_millis(),
            Self::OutOfRange(millis) => millis,
        }
    }

    /// The instant; `None` if the timestamp is out of range.
    pub const fn instant(self) -> Option<Timestamp> {
        match self {
            Self::Instant(instant) => Some(instant),
            Self::OutOfRange(_) => None,
        }
    }
}

impl From<Timestamp> for RecordTimestamp {
    fn from(instant: Timestamp) -> Self {
        Self::Instant(instant)
    }
}

/// A record that a consumer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Record {
    /// The partition of the record.
    pub partition: PartitionId,
    /// The offset of the record in the partition.
    pub offset: i64,
    /// The timestamp from the producer or the broker, if there is one.
    pub timestamp: Option<RecordTimestamp>,
    /// The key; for events, the user.
    pub key: Option<Bytes>,
    /// The value; for events, JSON. `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in order. A name may occur more than once.
    pub headers: Vec<Header>,
}

impl Record {
    /// A record with `value`, without timestamp, key and headers.
    ///
    /// ```
    /// use netagg_core::{PartitionId, Record, RecordTimestamp};
    ///
    /// let timestamp = RecordTimestamp::from_millis(1_761_000_000_000);
    /// let record = Record::new(PartitionId::new("events", 0), 5, "{}").with_timestamp(timestamp).with_key("user-1");
    /// assert_eq!(record.size(), 8);
    /// // A tombstone:
    /// let record = Record { value: None, ..record };
    /// # assert_eq!(record.size(), 6);
    /// ```
    pub fn new(partition: PartitionId, offset: i64, value: impl Into<Bytes>) -> Self {
        Self { partition, offset, timestamp: None, key: None, value: Some(value.into()), headers: Vec::new() }
    }

    /// Sets the timestamp. The age limits of events refer to it, so a record without a timestamp becomes a dead letter.
    #[must_use]
    pub fn with_timestamp(self, timestamp: impl Into<RecordTimestamp>) -> Self {
        Self { timestamp: Some(timestamp.into()), ..self }
    }

    /// Sets the key.
    #[must_use]
    pub fn with_key(self, key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Sets the headers.
    #[must_use]
    pub fn with_headers(self, headers: Vec<Header>) -> Self {
        Self { headers, ..self }
    }

    /// The instant of the timestamp, if the record has a timestamp that is in range.
    pub fn instant(&self) -> Option<Timestamp> {
        self.timestamp.and_then(RecordTimestamp::instant)
    }

    /// The size of key, value and headers in bytes: about the memory that the record takes.
    pub fn size(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|header| header.name.len() + len(&header.value)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

/// A record that a producer sends. The log decides its offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct OutgoingRecord {
    /// The key, which decides the partition. Records with equal keys go to the same partition, in order.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Vec<Header>,
}

impl OutgoingRecord {
    /// A record with `value`, without key and headers.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn with_key(self, key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..self }
    }
}

impl From<Record> for OutgoingRecord {
    fn from(record: Record) -> Self {
        Self { key: record.key, value: record.value, headers: record.headers }
    }
}

/// A header of a record: a name and a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Header {
    /// The name.
    pub name: String,
    /// The value. `None` is null, which differs from an empty value.
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a value.
    pub fn new(name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }
}

/// A position in a partition: every record below `next_offset` is processed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the first record that is not processed.
    pub next_offset: i64,
}

/// A range of offsets of a partition: from `from` up to, but not including, `to`.
///
/// A span also covers offsets without a record (compacted records, markers of transactions). So the spans of one reader follow
/// each other without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Span {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: i64,
    /// The offset after the last one.
    pub to: i64,
    /// How many records were read in the span. The other offsets hold no record.
    pub records: u64,
    /// The timestamp of the last record of the span that has a timestamp.
    pub last_timestamp: Option<Timestamp>,
}

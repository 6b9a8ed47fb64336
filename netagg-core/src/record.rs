//! Records of a partitioned log, and positions in it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::time::Timestamp;

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct PartitionId {
    /// The topic's name, shared by all that name it.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
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

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Place {
    /// Its partition.
    pub partition: PartitionId,
    /// Its position there.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// The timestamp that a record's producer or broker gave it.
///
/// Logs keep a number of milliseconds. A producer that sends another unit (microseconds, nanoseconds) gives one that no
/// calendar has; such a number is kept, so that dead letters tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum RecordTimestamp {
    /// An instant of the years 0001 to 9999.
    Instant(Timestamp),
    /// Milliseconds since 1970 that lie outside of these years.
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

    /// The instant, unless it is out of range.
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

/// A record as a consumer reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Record {
    /// Where it lies.
    pub partition: PartitionId,
    /// Its position there.
    pub offset: i64,
    /// The timestamp its producer or broker gave it, if any.
    pub timestamp: Option<RecordTimestamp>,
    /// Its key; for events, the user.
    pub key: Option<Bytes>,
    /// Its value; for events, JSON. `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order; names may repeat.
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

    /// Sets the timestamp, by which the age of the record's event is judged. A record without a timestamp holds no valid event.
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

    /// The instant of its timestamp, if it has one that is in range.
    pub fn instant(&self) -> Option<Timestamp> {
        self.timestamp.and_then(RecordTimestamp::instant)
    }

    /// Bytes of key, value and headers: what holding it costs.
    pub fn size(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|header| header.name.len() + len(&header.value)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

/// A record as a producer hands it over; the log gives it its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct OutgoingRecord {
    /// Decides the partition: equal keys go to the same one, in order.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
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

/// A named value beside a record's own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value; `None` is null, which is not empty.
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a value.
    pub fn new(name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }
}

/// A position in a partition: every record below `next_offset` is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the first record that is not done with.
    pub next_offset: i64,
}

/// A stretch of a partition: the offsets from `from` up to, but not including, `to`.
///
/// It covers offsets that hold no record (compacted ones, transaction markers), so that the spans of one reader join.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Span {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: i64,
    /// The offset after the last one.
    pub to: i64,
    /// How many records were read in it; the other offsets hold none.
    pub records: u64,
    /// The timestamp of its last record that has one.
    pub last_timestamp: Option<Timestamp>,
}

//! The source that delivers records from the log.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::record::{PartitionId, Position, Record, Span};

/// An event of a source. The consumer handles source events in their order.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums)]
pub enum SourceEvent {
    /// These partitions are now assigned to this reader. Their records start at the last committed position.
    ///
    /// A source with groups returns `Assigned` before the first record of a partition. A source with a single reader may leave
    /// out `Assigned` and `Revoked`. Then all its partitions belong to this reader.
    Assigned(Vec<PartitionId>),
    /// Records of assigned partitions. The records of each partition are in the order of their offsets.
    ///
    /// - The offsets of a partition increase and are not negative. Offsets that the source leaves out count as vacant.
    /// - A record that is delivered again has the same offset, also in a later process: stores record which offsets are
    ///   processed.
    /// - A record has a timestamp. The service compares the event's time with it. A record without a timestamp becomes a dead
    ///   letter.
    /// - An empty list is allowed and has no effect. The consumer then polls again at once. So a source without records should
    ///   wait instead.
    Records(Vec<Record>),
    /// The source has read past these offsets of assigned partitions and found no record there. They hold markers of
    /// transactions, records of aborted transactions, or records that the log has compacted or deleted. Each span has 0
    /// records. The consumer records the span as processed and commits its end. So no lag remains on a partition that is read
    /// to its end.
    ///
    /// A source need not report vacant offsets that lie before a record. They belong to the span that ends with this record.
    Vacant(Vec<Span>),
    /// These partitions are no longer assigned to this reader. The source delivers no more records of them, and the consumer
    /// must not commit positions of them any more.
    Revoked(Vec<PartitionId>),
    /// The source has ended: no record will ever follow. The consumer finishes and commits all records that it has read, and
    /// its run ends.
    End,
}

/// A reader of a partitioned log, either as one member of a group or as the only reader.
///
/// [`StreamSource`](crate::StreamSource) makes a source from any stream of records, or of plain values such as the lines of a
/// file. `testkit` has a suite for sources with groups (`event_source`) and a suite for sources with a single reader
/// (`plain_source`).
///
/// **Delivery is at least once.** A source delivers every record of an assigned partition from the last committed position
/// on, in order. After a crash, a rebalance or a lost commit it delivers some records again.
///
/// A source limits the number and the bytes of the records that it fetches ahead. It keeps its membership of the group while
/// the consumer does not call [`next`](Self::next), because a slow consumer is still alive. It waits by itself while the
/// broker is unavailable.
#[async_trait]
pub trait EventSource: Debug + Send {
    /// Waits for the next source event and returns it.
    ///
    /// Cancel safe: no source event is lost if the future is dropped before it is ready.
    ///
    /// # Errors
    /// An error if the source cannot continue without help. The source itself retries after transient errors. After a retryable
    /// error, the next call continues where this call stopped.
    async fn next(&mut self) -> Result<SourceEvent, Error>;

    /// Commits these positions: all records below them are processed, and a later reader starts there.
    ///
    /// The source commits soon after the call, and at the latest in [`close`](Self::close). If a commit is lost, records are
    /// delivered again, and the results stay correct. The source ignores positions of partitions that are no longer assigned.
    ///
    /// # Errors
    /// An error if the source can never commit.
    async fn commit(&mut self, positions: &[Position]) -> Result<(), Error>;

    /// Makes the last commits durable if the broker is available, and leaves the group.
    ///
    /// # Errors
    /// An error if the last commits may not be durable. Then the records of these commits may be delivered again.
    async fn close(&mut self) -> Result<(), Error>;
}

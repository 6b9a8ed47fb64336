//! Where records come from.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::record::{PartitionId, Position, Record, Span};

/// What a source has to tell, in order.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums)]
pub enum SourceEvent {
    /// These partitions are this reader's from now on; their records start at the last committed position.
    ///
    /// A source with groups tells it before the first record of a partition. A source that one reader reads alone may leave
    /// out `Assigned` and `Revoked`: all of its partitions are then this reader's.
    Assigned(Vec<PartitionId>),
    /// Records of assigned partitions, those of one partition in the order of their offsets.
    ///
    /// - The offsets of one partition increase and are not negative. Offsets that are left out count as vacant.
    /// - A record keeps its offset when it is delivered again, also by a later process: stores keep which offsets are done.
    /// - A record has a timestamp, by which the age of its event is judged. Without one it is dead-lettered.
    /// - An empty list is allowed and means nothing. The consumer asks again at once, so a source without records waits instead.
    Records(Vec<Record>),
    /// The source has read past these offsets of assigned partitions and found no record there: markers of transactions,
    /// records of aborted transactions, records that the log has compacted or deleted. Each span has 0 records. The
    /// consumer notes the span as done and commits its end, so that no lag remains on a partition that is drained.
    ///
    /// A source need not tell of vacant offsets that lie before a record: they count as part of the span that ends with
    /// this record.
    Vacant(Vec<Span>),
    /// These partitions are no longer this reader's: no record of them follows, and no position of them is to be
    /// committed any more.
    Revoked(Vec<PartitionId>),
    /// There are no more records, and never will be. The consumer finishes and commits all it has read, and its run ends.
    End,
}

/// A reader of a partitioned log: as one member of a group, or alone.
///
/// [`StreamSource`](crate::StreamSource) makes a source of any stream: of records, or of plain values such as the lines of a
/// file. `testkit` has a suite for sources with groups (`event_source`) and for sources that are read alone (`plain_source`).
///
/// **Delivery is at least once.** Every record of an assigned partition from its last committed position on is
/// delivered in order; after a crash, a rebalance or a lost commit some are delivered again.
///
/// A source bounds what it fetches ahead by count and bytes, keeps its membership while nobody calls
/// [`next`](Self::next) (a slow consumer is no dead one), and waits for an absent broker by itself.
#[async_trait]
pub trait EventSource: Debug + Send {
    /// Waits for what comes next.
    ///
    /// Cancel safe: nothing is lost when the future is dropped before it is done.
    ///
    /// # Errors
    /// When the source cannot go on without help; transient trouble is waited out inside. After a retryable error the
    /// next call goes on where this one stopped.
    async fn next(&mut self) -> Result<SourceEvent, Error>;

    /// Records that everything below these positions is done with, so that a later reader starts there.
    ///
    /// It is a promise to try soon, and at the latest in [`close`](Self::close): losing a commit costs a redelivery, not
    /// correctness. Positions of partitions that are no longer assigned are ignored.
    ///
    /// # Errors
    /// When the source can never commit.
    async fn commit(&mut self, positions: &[Position]) -> Result<(), Error>;

    /// Makes the last commits durable as far as the broker can be reached, and leaves the group.
    ///
    /// # Errors
    /// When the last commits could not be made sure of; their records may be delivered again.
    async fn close(&mut self) -> Result<(), Error>;
}

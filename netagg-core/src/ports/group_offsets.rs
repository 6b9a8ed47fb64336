//! The offsets of a consumer group.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;

/// Tells the committed offsets and the members of a consumer group, and the ends of the partitions.
///
/// All methods only read, and may be called at any time by any number of processes.
#[async_trait]
pub trait GroupOffsets: Debug + Send + Sync {
    /// The lag of `group` in each partition of `topic`; `None` if the topic does not exist. The lag is 0 where no record
    /// follows the committed offset, such as behind a marker of a transaction.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
    async fn lag(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error>;

    /// As [`lag`](Self::lag), but also counts offsets without a record, and reads no record. The ends of the partitions are
    /// read before the committed offsets.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
    async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error>;

    /// How many members `group` has. A killed member counts until its session ends.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
    async fn members(&self, group: &str) -> Result<usize, Error>;
}

/// How far a group has got in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition's number, from 0.
    pub number: i32,
    /// The committed offset: the next one that the group reads. `None` if the group has not committed any.
    pub committed: Option<i64>,
    /// The end of the partition: the offset of the next message.
    pub high: i64,
    /// How many offsets the group has still to read; 0 if none of them holds a record.
    pub lag: i64,
}

//! The port that reads the offsets and members of a consumer group.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;

/// Reads the committed offsets and the members of a consumer group, and the ends of the partitions.
///
/// No method changes anything. Any number of processes may call the methods at any time.
#[async_trait]
pub trait GroupOffsets: Debug + Send + Sync {
    /// Returns the lag of `group` in each partition of `topic`, or `None` if the topic does not exist. The lag of a partition
    /// is 0 if no record follows the committed offset, for example if only a marker of a transaction follows.
    ///
    /// # Errors
    /// A retryable error while the broker is unavailable or denies access.
    async fn lag(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error>;

    /// Returns the lag like [`lag`](Self::lag), but also counts offsets without a record, and reads no record. The method
    /// reads the ends of the partitions before the committed offsets.
    ///
    /// # Errors
    /// A retryable error while the broker is unavailable or denies access.
    async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error>;

    /// Returns the number of members of `group`. A killed member counts until its session ends.
    ///
    /// # Errors
    /// A retryable error while the broker is unavailable or denies access.
    async fn members(&self, group: &str) -> Result<usize, Error>;
}

/// The committed offset and the lag of a group in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// The number of the partition, from 0.
    pub number: i32,
    /// The committed offset: the next offset that the group reads. `None` if the group has committed no offset.
    pub committed: Option<i64>,
    /// The end of the partition: the offset of the next message.
    pub high: i64,
    /// The number of offsets that the group has not read yet. [`GroupOffsets::lag`] returns 0 if none of them holds a record.
    pub lag: i64,
}

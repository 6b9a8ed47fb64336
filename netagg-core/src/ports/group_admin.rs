//! The port that changes a consumer group from outside.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;

/// Changes the committed offsets of a consumer group that has no members.
#[async_trait]
pub trait GroupAdmin: Debug + Send + Sync {
    /// Commits `offsets` for `group`: pairs of the number of a partition and the next offset to read.
    ///
    /// # Errors
    /// An error if the group has members. A retryable error while the broker is unavailable or denies access.
    async fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Error>;

    /// Deletes `group` with its committed offsets. Deleting a group that does not exist is not an error.
    ///
    /// # Errors
    /// An error if the group has members. A retryable error while the broker is unavailable or denies access.
    async fn delete(&self, group: &str) -> Result<(), Error>;
}

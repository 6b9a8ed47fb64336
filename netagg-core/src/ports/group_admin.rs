//! Changes of a consumer group from outside.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;

/// Changes the committed offsets of a consumer group that has no members.
#[async_trait]
pub trait GroupAdmin: Debug + Send + Sync {
    /// Commits `offsets` for `group`, as pairs of a partition's number and the next offset to read.
    ///
    /// # Errors
    /// If the group has members. Retryable while the broker is away or refuses access.
    async fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Error>;

    /// Deletes `group` with its committed offsets. A group that does not exist is no error.
    ///
    /// # Errors
    /// If the group has members. Retryable while the broker is away or refuses access.
    async fn delete(&self, group: &str) -> Result<(), Error>;
}

//! Answers kept for a while.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Error;
use crate::time::Month;

/// What an answer is kept under, and which changes make it stale.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct CacheKey {
    /// Names the question; equal questions have equal names.
    pub name: String,
    /// The months whose totals the answer was computed from; empty for one that only ages.
    pub months: Vec<Month>,
}

/// The right to fill a key with an answer computed after the lookup that gave it.
///
/// An invalidation of one of the key's months makes it void, so that no reader can put an old answer back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTicket {
    key: String,
}

impl CacheTicket {
    /// A ticket to fill the adapter's own key `key`, which names the versions that the lookup saw.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into() }
    }

    /// The adapter's own key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// What a cache holds under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Lookup {
    /// An answer.
    Hit(Bytes),
    /// None; whoever computes it may put it there.
    Miss(CacheTicket),
}

/// Keeps answers until they age or are invalidated. It may forget anything at any time.
///
/// Every call is safe to cancel and bounded in time by the adapter. An error means the same to a reader as a miss that
/// cannot be filled.
#[async_trait]
pub trait Cache: Debug + Send + Sync {
    /// What is kept under `key` and not invalidated since it was computed.
    ///
    /// # Errors
    /// While the cache cannot be reached.
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error>;

    /// Keeps `answer` for `ttl`, unless an invalidation has come since the lookup that gave `ticket`.
    ///
    /// # Errors
    /// While the cache cannot be reached.
    async fn fill(&self, ticket: CacheTicket, answer: Bytes, ttl: Duration) -> Result<(), Error>;

    /// Makes every answer stale that was computed from one of `months`, also those that are being computed.
    ///
    /// # Errors
    /// While the cache cannot be reached; any of them may be stale already.
    async fn invalidate(&self, months: &[Month]) -> Result<(), Error>;

    /// Makes every answer stale that was computed from any month.
    ///
    /// # Errors
    /// While the cache cannot be reached.
    async fn invalidate_all(&self) -> Result<(), Error>;
}

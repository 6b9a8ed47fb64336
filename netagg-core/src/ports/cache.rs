//! The cache of responses.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Error;
use crate::time::Month;

/// The key of a cached response: its name, and the months whose changes make the response stale.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct CacheKey {
    /// The name of the request. Equal requests have equal names.
    pub name: String,
    /// The months whose totals the response was computed from. If it is empty, no invalidation makes the response stale: it
    /// only expires.
    pub months: Vec<Month>,
}

/// The right to fill a key with a response that is computed after the lookup that returned the ticket.
///
/// An invalidation of one of the key's months makes the ticket void. So no reader can put an old response back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTicket {
    key: String,
}

impl CacheTicket {
    /// A ticket for `key`, the adapter's own key. It contains the versions of the months that the lookup saw.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into() }
    }

    /// The adapter's own key, with the versions that the lookup saw.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// The result of a lookup in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Lookup {
    /// The cached response.
    Hit(Bytes),
    /// The cache has no response. A caller that computes the response can fill the cache with this ticket.
    Miss(CacheTicket),
}

/// A cache that holds responses until they expire or are invalidated. It may drop any response at any time.
///
/// Every call is safe to cancel, and the adapter limits its time. For a reader, an error is like a miss that cannot be filled.
#[async_trait]
pub trait Cache: Debug + Send + Sync {
    /// Returns the response that is cached under `key`. A response is not returned after an invalidation of one of its months.
    ///
    /// # Errors
    /// An error while the cache is unavailable.
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error>;

    /// Caches `response` for `ttl`, unless one of its months was invalidated since the lookup that returned `ticket`.
    ///
    /// # Errors
    /// An error while the cache is unavailable.
    async fn fill(&self, ticket: CacheTicket, response: Bytes, ttl: Duration) -> Result<(), Error>;

    /// Makes every response stale that was computed from one of `months`. This includes responses that are being computed now.
    ///
    /// # Errors
    /// An error while the cache is unavailable. Then the responses of some of `months` may be stale already.
    async fn invalidate(&self, months: &[Month]) -> Result<(), Error>;

    /// Makes every response stale that was computed from the totals of a month.
    ///
    /// # Errors
    /// An error while the cache is unavailable.
    async fn invalidate_all(&self) -> Result<(), Error>;
}

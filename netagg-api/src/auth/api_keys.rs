//! The port of API keys.

use std::fmt::Debug;

use async_trait::async_trait;

use netagg_core::{Error, Timestamp};

use super::api_key::{ApiKey, KeyId};

/// Stores API keys. People create keys by hand, so there are few, and a reader lists all of them.
///
/// The conformance suite is `netagg_api::testkit::api_keys` (feature `testkit`).
#[async_trait]
pub trait ApiKeys: Debug + Send + Sync {
    /// Returns all keys in the order of their creation, including revoked and expired keys.
    ///
    /// # Errors
    /// A retryable error while the keys cannot be read.
    async fn list(&self) -> Result<Vec<ApiKey>, Error>;

    /// Stores `key`. The key is durable when the call returns. After an error the key may be stored or not: [`list`](Self::list)
    /// shows it.
    ///
    /// # Errors
    /// If a key with this id exists already: the existing key stays unchanged. A retryable error while the keys cannot be written.
    async fn create(&self, key: &ApiKey) -> Result<(), Error>;

    /// Revokes the key `id` permanently, at `now`. The revocation is durable when the call returns. A repeated call changes
    /// nothing: the time of the first revocation stays. Returns `false` if the key does not exist.
    ///
    /// # Errors
    /// A retryable error while the keys cannot be written.
    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, Error>;
}

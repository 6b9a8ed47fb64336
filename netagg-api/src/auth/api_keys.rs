//! The port of API keys.

use std::fmt::Debug;

use async_trait::async_trait;

use netagg_core::{Error, Timestamp};

use super::api_key::{ApiKey, KeyId};

/// Stores API keys. People make them, so there are few: a reader lists all of them.
///
/// The conformance suite is `netagg_api::testkit::api_keys` (feature `testkit`).
#[async_trait]
pub trait ApiKeys: Debug + Send + Sync {
    /// All keys, the revoked and the expired ones included, in the order of their making.
    ///
    /// # Errors
    /// Retryable while they cannot be read.
    async fn list(&self) -> Result<Vec<ApiKey>, Error>;

    /// Keeps `key`: durable when it returns. After an error it may be kept or not; [`list`](Self::list) tells.
    ///
    /// # Errors
    /// When there is one with its id already, which stays as it is; retryable ones while the keys cannot be written.
    async fn create(&self, key: &ApiKey) -> Result<(), Error>;

    /// Takes the key `id` back: durable when it returns, for good, and harmless to repeat; the first time counts.
    /// `false` if there is no such key.
    ///
    /// # Errors
    /// Retryable while the keys cannot be written.
    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, Error>;
}

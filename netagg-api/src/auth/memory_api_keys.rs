//! API keys in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use netagg_core::{Error, Timestamp};

use super::api_key::{ApiKey, KeyId};
use super::api_keys::ApiKeys;

/// Keeps keys in memory until the drop.
#[derive(Debug, Default)]
pub struct MemoryApiKeys {
    keys: Mutex<Vec<ApiKey>>,
}

impl MemoryApiKeys {
    /// A store without keys.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ApiKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ApiKeys for MemoryApiKeys {
    async fn list(&self) -> Result<Vec<ApiKey>, Error> {
        Ok(self.lock().clone())
    }

    async fn create(&self, key: &ApiKey) -> Result<(), Error> {
        let mut keys = self.lock();
        if keys.iter().any(|known| known.id == key.id) {
            let source = format!("there is a key {} already", key.id).into();
            return Err(Error::Refused { dependency: "api_keys", source });
        }
        keys.push(key.clone());
        Ok(())
    }

    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, Error> {
        let mut keys = self.lock();
        let key = keys.iter_mut().find(|key| key.id == *id);
        Ok(key.map(|key| key.revoked_at.get_or_insert(now)).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn conforms() {
        crate::testkit::api_keys(async || Arc::new(MemoryApiKeys::new())).await;
    }
}

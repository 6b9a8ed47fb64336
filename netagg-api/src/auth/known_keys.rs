//! The API keys in memory, at most a few seconds behind the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use netagg_core::ports::{Clock, SystemClock};
use tokio_util::sync::CancellationToken;

use super::api_key::{ApiKey, ApiKeyToken, KeyId};
use super::api_keys::ApiKeys;
use super::principal::Principal;
use super::refreshing::{Refreshing, Times};
use super::rejection::Rejection;

/// How often keys are read. A read may also take 5 s, so a revoked key stays valid for at most 8 s.
const INTERVAL: Duration = Duration::from_secs(3);

/// How long keys stay valid while they cannot be read again. So a short outage of the database causes no outage of the API.
/// During a longer outage a key may have been revoked, so the API accepts no key.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// The rejection of an unknown key, a wrong secret and an expired or revoked key. A caller cannot tell them apart.
pub(super) const UNKNOWN: Rejection = Rejection::BadCredentials("these credentials are unknown or no longer valid");

/// The valid keys by their ids.
#[derive(Debug)]
pub(super) struct KnownKeys {
    keys: Arc<dyn ApiKeys>,
    known: Refreshing<HashMap<KeyId, (ApiKey, Arc<Principal>)>>,
}

impl KnownKeys {
    pub(super) fn new(keys: Arc<dyn ApiKeys>) -> Self {
        let times = Times { name: "API keys", interval: INTERVAL, retry_interval: INTERVAL, grace: GRACE };
        Self { keys, known: Refreshing::new(times) }
    }

    /// Returns the holder of the key `token`.
    pub(super) fn holder_of(&self, token: &ApiKeyToken) -> Result<Arc<Principal>, Rejection> {
        self.known.with(|known| {
            let (key, principal) = known.get(token.id()).ok_or(UNKNOWN)?;
            if key.matches(token) && key.is_valid_at(SystemClock.now()) { Ok(principal.clone()) } else { Err(UNKNOWN) }
        })
    }

    /// Checks that keys can be verified now. The error has the reason.
    pub(super) fn check(&self) -> Result<(), String> {
        self.known.check()
    }

    /// Reads the keys again at the interval, until `shutdown`.
    pub(super) async fn refresh_loop(&self, shutdown: &CancellationToken) {
        let read = || async {
            let (keys, now) = (self.keys.list().await?, SystemClock.now());
            let valid = keys.into_iter().filter(|key| key.is_valid_at(now));
            Ok(valid.map(|key| (key.id.clone(), (key.clone(), Arc::new(key.principal)))).collect())
        };
        self.known.refresh_loop(shutdown, read).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use async_trait::async_trait;
    use netagg_core::{Error, Timestamp};

    use super::super::memory_api_keys::MemoryApiKeys;
    use super::super::refreshing::READ_TIMEOUT;
    use super::*;

    /// Keys that cannot be read while `unavailable` is set.
    #[derive(Debug, Default)]
    struct Keys {
        keys: MemoryApiKeys,
        unavailable: AtomicBool,
    }

    #[async_trait]
    impl ApiKeys for Keys {
        async fn list(&self) -> Result<Vec<ApiKey>, Error> {
            if self.unavailable.load(SeqCst) { std::future::pending().await } else { self.keys.list().await }
        }

        async fn create(&self, key: &ApiKey) -> Result<(), Error> {
            self.keys.create(key).await
        }

        async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, Error> {
            self.keys.revoke(id, now).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_outlive_an_outage_but_not_a_revocation() {
        let keys = Arc::new(Keys::default());
        let (known, shutdown) = (Arc::new(KnownKeys::new(keys.clone())), CancellationToken::new());
        let token = ApiKeyToken::generate().expect("random numbers");
        let key = ApiKey::new(&token, Principal::anybody(), SystemClock.now(), None);
        keys.create(&key).await.expect("created");

        assert_eq!(known.holder_of(&token), Err(Rejection::Unavailable), "the keys were not read yet");
        assert!(known.check().is_err());
        let refresh_loop = tokio::spawn({
            let (known, shutdown) = (known.clone(), shutdown.clone());
            async move { known.refresh_loop(&shutdown).await }
        });
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(known.holder_of(&token).expect("known").name, "anybody");

        keys.unavailable.store(true, SeqCst);
        tokio::time::sleep(GRACE - INTERVAL - READ_TIMEOUT).await;
        assert!(known.holder_of(&token).is_ok() && known.check().is_ok(), "keys stay valid during an outage");
        tokio::time::sleep(2 * (INTERVAL + READ_TIMEOUT)).await;
        assert_eq!(known.holder_of(&token), Err(Rejection::Unavailable), "the outage is too long");
        assert!(known.check().is_err());

        keys.unavailable.store(false, SeqCst);
        tokio::time::sleep(INTERVAL + READ_TIMEOUT).await;
        assert!(known.holder_of(&token).is_ok());
        keys.revoke(&key.id, SystemClock.now()).await.expect("revoked");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(known.holder_of(&token), Err(UNKNOWN));
        shutdown.cancel();
        refresh_loop.await.expect("the refresh loop ends");
    }
}

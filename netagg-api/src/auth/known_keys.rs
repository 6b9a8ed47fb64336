//! The API keys that were valid a few seconds ago.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use netagg_core::ports::{Clock, SystemClock};
use tokio_util::sync::CancellationToken;

use super::api_key::{ApiKey, ApiKeyToken, KeyId};
use super::api_keys::ApiKeys;
use super::principal::Principal;
use super::refreshing::{Refreshing, Times};
use super::refusal::Refusal;

/// How often keys are read. With the time that a reading may take, a revoked key is good for 8 s more at most.
const INTERVAL: Duration = Duration::from_secs(3);

/// How long keys are good that cannot be read again: an outage of the database is not one of the API, unless it is
/// so long that a key revoked before it must be feared.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Nothing tells an unknown key from a wrong secret, or one that was good before.
pub(super) const UNKNOWN: Refusal = Refusal::BadCredentials("these credentials are not known, or no longer good");

/// Keys by their ids.
#[derive(Debug)]
pub(super) struct KnownKeys {
    keys: Arc<dyn ApiKeys>,
    known: Refreshing<HashMap<KeyId, (ApiKey, Arc<Principal>)>>,
}

impl KnownKeys {
    pub(super) fn new(keys: Arc<dyn ApiKeys>) -> Self {
        let times = Times { what: "API keys", interval: INTERVAL, hurried: INTERVAL, grace: GRACE };
        Self { keys, known: Refreshing::new(times) }
    }

    /// Who holds the key that `token` shows.
    pub(super) fn holder_of(&self, token: &ApiKeyToken) -> Result<Arc<Principal>, Refusal> {
        self.known.with(|known| {
            let (key, principal) = known.get(token.id()).ok_or(UNKNOWN)?;
            if key.matches(token) && key.is_valid_at(SystemClock.now()) { Ok(principal.clone()) } else { Err(UNKNOWN) }
        })
    }

    /// Whether keys can be told from others now.
    pub(super) fn check(&self) -> Result<(), String> {
        self.known.check()
    }

    /// Reads the keys again and again until `shutdown`.
    pub(super) async fn refresh_loop(&self, shutdown: &CancellationToken) {
        let read = || async {
            let (keys, now) = (self.keys.list().await?, SystemClock.now());
            let good = keys.into_iter().filter(|key| key.is_valid_at(now));
            Ok(good.map(|key| (key.id.clone(), (key.clone(), Arc::new(key.principal)))).collect())
        };
        self.known.refresh_loop(shutdown, read).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use async_trait::async_trait;
    use netagg_core::{Error, Timestamp};

    use super::super::memory::MemoryApiKeys;
    use super::super::refreshing::READ_TIMEOUT;
    use super::*;

    /// Keys that can be read, or not.
    #[derive(Debug, Default)]
    struct Keys {
        keys: MemoryApiKeys,
        away: AtomicBool,
    }

    #[async_trait]
    impl ApiKeys for Keys {
        async fn list(&self) -> Result<Vec<ApiKey>, Error> {
            if self.away.load(SeqCst) { std::future::pending().await } else { self.keys.list().await }
        }

        async fn create(&self, key: &ApiKey) -> Result<(), Error> {
            self.keys.create(key).await
        }

        async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, Error> {
            self.keys.revoke(id, now).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_outlive_an_outage_and_no_revocation() {
        let keys = Arc::new(Keys::default());
        let (ring, shutdown) = (Arc::new(KnownKeys::new(keys.clone())), CancellationToken::new());
        let token = ApiKeyToken::generate().expect("random numbers");
        let key = ApiKey::new(&token, Principal::anybody(), SystemClock.now(), None);
        keys.create(&key).await.expect("kept");

        assert_eq!(ring.holder_of(&token), Err(Refusal::Unavailable), "not known yet");
        assert!(ring.check().is_err());
        let keeping = tokio::spawn({
            let (ring, shutdown) = (ring.clone(), shutdown.clone());
            async move { ring.refresh_loop(&shutdown).await }
        });
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(ring.holder_of(&token).expect("known").name, "anybody");

        keys.away.store(true, SeqCst);
        tokio::time::sleep(GRACE - INTERVAL - READ_TIMEOUT).await;
        assert!(ring.holder_of(&token).is_ok() && ring.check().is_ok(), "an outage is sat out");
        tokio::time::sleep(2 * (INTERVAL + READ_TIMEOUT)).await;
        assert_eq!(ring.holder_of(&token), Err(Refusal::Unavailable), "but not for ever");
        assert!(ring.check().is_err());

        keys.away.store(false, SeqCst);
        tokio::time::sleep(INTERVAL + READ_TIMEOUT).await;
        assert!(ring.holder_of(&token).is_ok());
        keys.revoke(&key.id, SystemClock.now()).await.expect("revoked");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(ring.holder_of(&token), Err(UNKNOWN));
        shutdown.cancel();
        keeping.await.expect("it ends");
    }
}

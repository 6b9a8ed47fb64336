//! The API keys that are good now, as of a few seconds ago.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use netagg_core::Error;
use netagg_core::access::{ApiKey, ApiKeyToken, KeyId, Principal};
use netagg_core::ports::{ApiKeys, Clock, SystemClock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Refusal;

/// How often keys are read. With the time that a reading may take, a revoked key is good for 8 s more at most.
const INTERVAL: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long keys are good that cannot be read again: an outage of the database is not one of the API, unless it is
/// so long that a key revoked before it must be feared.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Nothing tells an unknown key from a wrong secret, or one that was good before.
pub(super) const UNKNOWN: Refusal = Refusal::BadCredentials("these credentials are not known, or no longer good");

/// Keys by what they are called, read all at once, so that callers who make keys up cost no reading.
#[derive(Debug)]
pub(super) struct KeyRing {
    keys: Arc<dyn ApiKeys>,
    known: RwLock<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    keys: HashMap<KeyId, (ApiKey, Arc<Principal>)>,
    read_at: Instant,
}

impl KeyRing {
    pub(super) fn new(keys: Arc<dyn ApiKeys>) -> Self {
        Self { keys, known: RwLock::new(None) }
    }

    /// Who holds the key that `token` shows.
    pub(super) fn holder_of(&self, token: &ApiKeyToken) -> Result<Arc<Principal>, Refusal> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|known| known.read_at.elapsed() < GRACE).ok_or(Refusal::Unavailable)?;
        let (key, principal) = known.keys.get(token.id()).ok_or(UNKNOWN)?;
        if key.is_shown_by(token) && key.is_good(SystemClock.now()) { Ok(principal.clone()) } else { Err(UNKNOWN) }
    }

    /// Whether keys can be told from others now.
    pub(super) fn check(&self) -> Result<(), String> {
        match &*self.known.read().unwrap_or_else(PoisonError::into_inner) {
            None => Err("the API keys were not read yet".to_owned()),
            Some(known) if known.read_at.elapsed() >= GRACE => Err("the API keys cannot be read any more".to_owned()),
            Some(_) => Ok(()),
        }
    }

    /// Reads the keys again and again until `shutdown`.
    pub(super) async fn keep_up(&self, shutdown: &CancellationToken) {
        let mut is_told = false;
        while !shutdown.is_cancelled() {
            match self.read().await {
                Ok(()) => is_told = false,
                Err(error) if !std::mem::replace(&mut is_told, true) => {
                    tracing::warn!(%error, "the API keys cannot be read; those known so far stay good for a while");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn read(&self) -> Result<(), Error> {
        let read_at = Instant::now();
        let keys = tokio::time::timeout(READ_TIMEOUT, self.keys.list())
            .await
            .map_err(|_| Error::unavailable("api_keys", format!("no answer within {READ_TIMEOUT:?}")))??;
        let now = SystemClock.now();
        let good = keys.into_iter().filter(|key| key.is_good(now));
        let keys = good.map(|key| (key.id.clone(), (key.clone(), Arc::new(key.principal)))).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Known { keys, read_at });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use async_trait::async_trait;
    use netagg_core::Timestamp;
    use netagg_core::memory::MemoryApiKeys;

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
        let (ring, shutdown) = (Arc::new(KeyRing::new(keys.clone())), CancellationToken::new());
        let token = ApiKeyToken::generate().expect("random numbers");
        let key = ApiKey::new(&token, Principal::anybody(), SystemClock.now(), None);
        keys.create(&key).await.expect("kept");

        assert_eq!(ring.holder_of(&token), Err(Refusal::Unavailable), "not known yet");
        assert!(ring.check().is_err());
        let keeping = tokio::spawn({
            let (ring, shutdown) = (ring.clone(), shutdown.clone());
            async move { ring.keep_up(&shutdown).await }
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

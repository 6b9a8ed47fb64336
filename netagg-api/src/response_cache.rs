//! Encoded responses, kept for a short time for the many clients that request the same totals.
//!
//! This cache is not a wrapper around the [`Cache`](netagg_core::ports::Cache) of the usage service. A wrapper holds answers in
//! the form of the store, so each hit would be decoded, encoded and hashed again. That gave 0.14 of the requests/s of a bare
//! handler. Encoded responses give 0.60 (docs/performance.md).

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

/// How long a cached response is used. A response is at most 1 s behind the commits of the aggregator. Redis and PostgreSQL
/// need the larger part of this second.
const TTL: Duration = Duration::from_millis(50);

/// The largest size of all responses together, in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// Responses of type `V` to requests of type `K`. Of many concurrent requests for the same response, one computes it.
#[derive(Clone)]
pub(crate) struct ResponseCache<K, V>(Cache<K, Entry<V>>);

#[derive(Clone)]
struct Entry<V> {
    value: V,
    computed_since: Instant,
    bytes: u32,
}

impl<K, V> ResponseCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_, entry: &Entry<V>| entry.bytes)
            .expire_after(Ttl)
            .build();
        Self(cache)
    }

    /// Returns the response for `key`. If the cache has no response younger than [`TTL`], `compute` computes the response and
    /// its size in bytes. Failures are not cached.
    pub(crate) async fn get<E, A>(&self, key: K, compute: impl FnOnce() -> A) -> Result<V, E>
    where
        E: Clone + Send + Sync + 'static,
        A: Future<Output = Result<(V, usize), E>>,
    {
        if let Some(entry) = self.0.get(&key).await {
            count_local_hit();
            return Ok(entry.value);
        }
        let compute = async {
            // The age counts from here: a commit after the start of the query may be missing in its result.
            let computed_since = Instant::now();
            let (value, bytes) = compute().await?;
            Ok(Entry { value, computed_since, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) })
        };
        // Boxed, so that the future of a hit stays small.
        let entry = Box::pin(self.0.entry(key).or_try_insert_with(compute)).await;
        let entry = entry.map_err(|failure: Arc<E>| (*failure).clone())?;
        if !entry.is_fresh() {
            count_local_hit();
        }
        Ok(entry.into_value().value)
    }
}

fn count_local_hit() {
    metrics::counter!("netagg_cache_lookups_total", "outcome" => "local_hit").increment(1);
}

impl<K, V> fmt::Debug for ResponseCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache").finish_non_exhaustive()
    }
}

struct Ttl;

impl<K, V> Expiry<K, Entry<V>> for Ttl {
    fn expire_after_create(&self, _: &K, entry: &Entry<V>, _: Instant) -> Option<Duration> {
        Some(TTL.saturating_sub(entry.computed_since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn concurrent_requests_compute_once_and_failures_are_not_cached() {
        let cache = ResponseCache::new();
        let computed = AtomicU32::new(0);
        let fails = || async {
            computed.fetch_add(1, Ordering::Relaxed);
            Err::<(u32, usize), _>("unavailable")
        };
        for _ in 0..2 {
            assert!(matches!(cache.get("key", fails).await, Err("unavailable")));
        }
        assert_eq!(computed.swap(0, Ordering::Relaxed), 2);

        let succeeds = || async {
            tokio::task::yield_now().await;
            Ok::<_, &str>((computed.fetch_add(1, Ordering::Relaxed), 1))
        };
        let same = futures::future::join_all((0..100).map(|_| cache.get("key", succeeds))).await;
        assert!(same.into_iter().all(|response| matches!(response, Ok(0))));
        assert!(matches!(cache.get("another", succeeds).await, Ok(1)));
    }

    #[tokio::test]
    async fn a_response_that_took_longer_than_the_ttl_is_not_reused() {
        let cache = ResponseCache::new();
        let slow = || async {
            tokio::time::sleep(TTL).await;
            Ok::<_, &str>(("old", 1))
        };
        assert!(matches!(cache.get("key", slow).await, Ok("old")));
        assert!(matches!(cache.get("key", || async { Ok::<_, &str>(("new", 1)) }).await, Ok("new")));
    }
}

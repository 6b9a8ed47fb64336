//! Encoded responses, kept for a short time for the many clients that ask for the same totals.
//!
//! This cache is no wrapper around the [`Cache`](netagg_core::ports::Cache) of the usage service. A wrapper holds answers in the form
//! of the store, so each hit would be decoded, encoded and hashed again. That gave 0.14 of the requests/s of a bare handler;
//! encoded responses give 0.60 (docs/performance.md).

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

/// How long a response is repeated. An answer is at most 1 s behind the commits of the aggregator. Redis and PostgreSQL need
/// the larger part of it.
const TTL: Duration = Duration::from_millis(50);

/// The largest size of all responses together, in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// Responses of type `V` to requests of type `K`. Of many concurrent requests for the same response, one computes it.
#[derive(Clone)]
pub(crate) struct ResponseCache<K, V>(Cache<K, Answer<V>>);

#[derive(Clone)]
struct Answer<V> {
    value: V,
    asked: Instant,
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
            .weigher(|_, answer: &Answer<V>| answer.bytes)
            .expire_after(Ttl)
            .build();
        Self(cache)
    }

    /// The response to `question`. If there is none younger than [`TTL`], `ask` computes it and its size in bytes. Failures
    /// are not kept.
    pub(crate) async fn get<E, A>(&self, question: K, ask: impl FnOnce() -> A) -> Result<V, E>
    where
        E: Clone + Send + Sync + 'static,
        A: Future<Output = Result<(V, usize), E>>,
    {
        if let Some(answer) = self.0.get(&question).await {
            count_local_hit();
            return Ok(answer.value);
        }
        let ask = async {
            // The age counts from here: a commit after the start of the query may be missing in its result.
            let asked = Instant::now();
            let (value, bytes) = ask().await?;
            Ok(Answer { value, asked, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) })
        };
        // Boxed, so that the future of a hit stays small.
        let answer = Box::pin(self.0.entry(question).or_try_insert_with(ask)).await;
        let answer = answer.map_err(|failure: Arc<E>| (*failure).clone())?;
        if !answer.is_fresh() {
            count_local_hit();
        }
        Ok(answer.into_value().value)
    }
}

fn count_local_hit() {
    metrics::counter!("netagg_cache_lookups_total", "outcome" => "kept").increment(1);
}

impl<K, V> fmt::Debug for ResponseCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache").finish_non_exhaustive()
    }
}

struct Ttl;

impl<K, V> Expiry<K, Answer<V>> for Ttl {
    fn expire_after_create(&self, _: &K, answer: &Answer<V>, _: Instant) -> Option<Duration> {
        Some(TTL.saturating_sub(answer.asked.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_ask_once_and_a_failure_is_not_kept() {
        let cache = ResponseCache::new();
        let asked = AtomicU32::new(0);
        let fails = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Err::<(u32, usize), _>("away")
        };
        for _ in 0..2 {
            assert!(matches!(cache.get("question", fails).await, Err("away")));
        }
        assert_eq!(asked.swap(0, Ordering::Relaxed), 2);

        let answers = || async {
            tokio::task::yield_now().await;
            Ok::<_, &str>((asked.fetch_add(1, Ordering::Relaxed), 1))
        };
        let same = futures::future::join_all((0..100).map(|_| cache.get("question", answers))).await;
        assert!(same.into_iter().all(|answer| matches!(answer, Ok(0))));
        assert!(matches!(cache.get("another", answers).await, Ok(1)));
    }

    #[tokio::test]
    async fn an_answer_that_took_its_moment_is_not_given_again() {
        let cache = ResponseCache::new();
        let slow = || async {
            tokio::time::sleep(TTL).await;
            Ok::<_, &str>(("old", 1))
        };
        assert!(matches!(cache.get("question", slow).await, Ok("old")));
        assert!(matches!(cache.get("question", || async { Ok::<_, &str>(("new", 1)) }).await, Ok("new")));
    }
}

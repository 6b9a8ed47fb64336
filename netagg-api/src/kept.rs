//! Answers kept for the moment in which many ask for the same.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

/// How long an answer is given again without asking anybody. An answer is at most a second behind what the aggregator has
/// committed; this leaves the larger part of that to Redis and PostgreSQL.
const MOMENT: Duration = Duration::from_millis(250);

/// The most that is kept, in bytes of answers.
const MAX_BYTES: u64 = 8 << 20;

/// Answers of type `V` to questions of type `K`, asked for once however many wait for them.
#[derive(Clone)]
pub(crate) struct Kept<K, V>(Cache<K, Answer<V>>);

#[derive(Clone)]
struct Answer<V> {
    value: V,
    asked: Instant,
    bytes: u32,
}

impl<K, V> Kept<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_, answer: &Answer<V>| answer.bytes)
            .expire_after(Moment)
            .build();
        Self(cache)
    }

    /// The answer to `question`, which `ask` gives with its size in bytes, unless it was asked for a moment ago.
    /// Failures are not kept.
    pub(crate) async fn get<E, A>(&self, question: K, ask: impl FnOnce() -> A) -> Result<V, E>
    where
        E: Clone + Send + Sync + 'static,
        A: Future<Output = Result<(V, usize), E>>,
    {
        if let Some(answer) = self.0.get(&question).await {
            count_kept();
            return Ok(answer.value);
        }
        let ask = async {
            // Counted from here: what was committed while the answer was on its way may not be in it.
            let asked = Instant::now();
            let (value, bytes) = ask().await?;
            Ok(Answer { value, asked, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) })
        };
        // Boxed, or else the answers that are kept would pay for the room that asking takes.
        let answer = Box::pin(self.0.entry(question).or_try_insert_with(ask)).await;
        let answer = answer.map_err(|failure: Arc<E>| (*failure).clone())?;
        if !answer.is_fresh() {
            count_kept();
        }
        Ok(answer.into_value().value)
    }
}

fn count_kept() {
    metrics::counter!("netagg_cache_lookups_total", "outcome" => "kept").increment(1);
}

impl<K, V> fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

struct Moment;

impl<K, V> Expiry<K, Answer<V>> for Moment {
    fn expire_after_create(&self, _: &K, answer: &Answer<V>, _: Instant) -> Option<Duration> {
        Some(MOMENT.saturating_sub(answer.asked.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_ask_once_and_a_failure_is_not_kept() {
        let kept = Kept::new();
        let asked = AtomicU32::new(0);
        let fails = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Err::<(u32, usize), _>("away")
        };
        for _ in 0..2 {
            assert!(matches!(kept.get("question", fails).await, Err("away")));
        }
        assert_eq!(asked.swap(0, Ordering::Relaxed), 2);

        let answers = || async {
            tokio::task::yield_now().await;
            Ok::<_, &str>((asked.fetch_add(1, Ordering::Relaxed), 1))
        };
        let same = futures::future::join_all((0..100).map(|_| kept.get("question", answers))).await;
        assert!(same.into_iter().all(|answer| matches!(answer, Ok(0))));
        assert!(matches!(kept.get("another", answers).await, Ok(1)));
    }

    #[tokio::test]
    async fn an_answer_that_took_its_moment_is_not_given_again() {
        let kept = Kept::new();
        let slow = || async {
            tokio::time::sleep(MOMENT).await;
            Ok::<_, &str>(("old", 1))
        };
        assert!(matches!(kept.get("question", slow).await, Ok("old")));
        assert!(matches!(kept.get("question", || async { Ok::<_, &str>(("new", 1)) }).await, Ok("new")));
    }
}

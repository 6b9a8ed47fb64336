//! Repeats what may succeed later: with growing, jittered pauses, for as long as it takes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use super::ConsumerStats;
use crate::Error;

/// How failed attempts are repeated: pauses double from `first_delay` up to `max_delay`, each lengthened by a random share
/// of itself, so that many clients do not retry at the same moments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The pause after the first failure. Default: 100 ms.
    pub first_delay: Duration,
    /// The longest pause, before the random share. Default: 3 s.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first_delay: Duration::from_millis(100), max_delay: Duration::from_secs(3) }
    }
}

impl RetryPolicy {
    /// Repeats `attempt` until it succeeds; returns `None` if `shutdown` comes first. The first failure is logged. A service
    /// waits so at its start for a dependency that is not there yet.
    ///
    /// # Errors
    /// The first error that is not [retryable](Error::is_retryable).
    pub async fn retry<T>(
        &self,
        shutdown: &CancellationToken,
        attempt: impl AsyncFn() -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut backoff = self.backoff();
        let mut is_logged = false;
        loop {
            match attempt().await {
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.is_retryable() => {
                    if !std::mem::replace(&mut is_logged, true) {
                        tracing::warn!(%error, "waiting");
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    fn backoff(&self) -> Backoff {
        let delays = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.max_delay)
            .without_max_times()
            .build();
        Backoff { delays, max_delay: self.max_delay }
    }
}

/// Pauses between attempts, longer each time.
pub(crate) struct Backoff {
    delays: ExponentialBackoff,
    max_delay: Duration,
}

impl Backoff {
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.max_delay)
    }
}

/// Why an attempt was given up.
#[derive(Debug)]
pub(crate) enum Abandoned {
    /// The consumer stops, and the dependency is still away.
    Stopping,
    /// No repetition can help.
    Failed(Error),
}

/// Repeats calls until they succeed, cannot succeed, or the consumer gives up. One line of log tells that a dependency
/// is away and one that it is back, however many calls wait for it.
#[derive(Clone, Debug)]
pub(crate) struct Retrier {
    policy: RetryPolicy,
    abandon: CancellationToken,
    /// Told which dependencies are waited for.
    stats: Arc<ConsumerStats>,
    away: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// So many failures in a row are an outage; fewer are what happens now and then, such as a deadlock.
const OUTAGE: usize = 3;

impl Retrier {
    pub(crate) fn new(policy: RetryPolicy, abandon: CancellationToken, stats: Arc<ConsumerStats>) -> Self {
        Self { policy, abandon, stats, away: Arc::default() }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.policy.backoff()
    }

    /// `duration`, lengthened by a random share of up to a half.
    pub(crate) fn jittered(&self, duration: Duration) -> Duration {
        let share = ExponentialBuilder::default().with_jitter().with_min_delay(duration / 2).build().next();
        duration / 2 + share.unwrap_or_default()
    }

    /// The result of `attempt`, which is repeated while its error is retryable.
    pub(crate) async fn run<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, Abandoned>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut backoff = self.backoff();
        let mut failed = BTreeSet::new();
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    failed.into_iter().for_each(|dependency| self.is_back(dependency));
                    return Ok(value);
                }
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(Abandoned::Failed(error)),
            };
            self.report(&error);
            failed.extend(error.dependency());
            failures += 1;
            if failures >= OUTAGE {
                self.stats.waits_for(&error);
            }
            tokio::select! {
                biased;
                () = self.abandon.cancelled() => return Err(Abandoned::Stopping),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Counts a failure, and tells that a dependency is away, unless that is known.
    pub(crate) fn report(&self, error: &Error) {
        let Some(dependency) = error.dependency() else { return };
        self.stats.retried(dependency);
        if self.away().insert(dependency) {
            if matches!(error, Error::NotSetUp { .. }) {
                tracing::error!(dependency, %error, "waiting until it is set up");
            } else {
                tracing::warn!(dependency, %error, "waiting until it is back");
            }
        }
    }

    fn is_back(&self, dependency: &'static str) {
        self.stats.waits_no_longer(dependency);
        if self.away().remove(dependency) {
            tracing::info!(dependency, "it is back");
        }
    }

    fn away(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_what_may_come_and_for_nothing_else() {
        let (policy, shutdown) = (RetryPolicy::default(), CancellationToken::new());
        let attempts = AtomicU32::new(0);
        let third = async || match attempts.fetch_add(1, Relaxed) {
            0 | 1 => Err(Error::unavailable("postgres", "away")),
            attempt => Ok(attempt),
        };
        assert_eq!(policy.retry(&shutdown, third).await.expect("it is back"), Some(2));
        let broken = async || Err::<(), _>(Error::internal("postgres", "broken"));
        assert!(policy.retry(&shutdown, broken).await.is_err_and(|error| !error.is_retryable()));
        shutdown.cancel();
        let away = async || Err::<(), _>(Error::unavailable("postgres", "away"));
        assert_eq!(policy.retry(&shutdown, away).await.expect("no error"), None);
    }
}

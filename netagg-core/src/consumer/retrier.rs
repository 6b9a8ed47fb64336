//! Retries the calls of a consumer, without a limit of attempts, and reports each outage once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::ConsumerStats;
use crate::Error;
use crate::retry_policy::{Backoff, RetryPolicy};

/// Why a call was not retried any more.
#[derive(Debug)]
pub(crate) enum Aborted {
    /// The consumer stops, and the dependency is still unavailable.
    Stopping,
    /// The error is not retryable.
    Failed(Error),
}

/// Retries calls until they succeed, fail with an error that is not retryable, or the consumer gives up.
///
/// The start and the end of an outage of a dependency are logged once each, however many calls wait for the dependency.
#[derive(Clone, Debug)]
pub(crate) struct Retrier {
    policy: RetryPolicy,
    abandon: CancellationToken,
    /// Records the retries, and the dependencies that calls wait for.
    stats: Arc<ConsumerStats>,
    unavailable: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// From this number of consecutive failures on, a dependency counts as blocked. Fewer failures are normal, such as after a
/// deadlock.
const OUTAGE: usize = 3;

impl Retrier {
    pub(crate) fn new(policy: RetryPolicy, abandon: CancellationToken, stats: Arc<ConsumerStats>) -> Self {
        Self { policy, abandon, stats, unavailable: Arc::default() }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.policy.backoff()
    }

    /// Repeats `attempt` while its error is retryable, and returns its result.
    pub(crate) async fn run<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, Aborted>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut backoff = self.backoff();
        let mut failed = BTreeSet::new();
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    failed.into_iter().for_each(|dependency| self.report_success(dependency));
                    return Ok(value);
                }
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(Aborted::Failed(error)),
            };
            self.report(&error);
            failed.extend(error.dependency());
            failures += 1;
            if failures >= OUTAGE {
                self.stats.set_blocked_on(&error);
            }
            tokio::select! {
                biased;
                () = self.abandon.cancelled() => return Err(Aborted::Stopping),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Counts a failure. Logs that the dependency is unavailable, unless this is logged already.
    pub(crate) fn report(&self, error: &Error) {
        let Some(dependency) = error.dependency() else { return };
        self.stats.retried(dependency);
        if self.unavailable().insert(dependency) {
            if matches!(error, Error::NotSetUp { .. }) {
                tracing::error!(dependency, %error, "waiting until the dependency is set up");
            } else {
                tracing::warn!(dependency, %error, "waiting until the dependency is available again");
            }
        }
    }

    fn report_success(&self, dependency: &'static str) {
        self.stats.clear_blocked_on(dependency);
        if self.unavailable().remove(dependency) {
            tracing::info!(dependency, "the dependency is available again");
        }
    }

    fn unavailable(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.unavailable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

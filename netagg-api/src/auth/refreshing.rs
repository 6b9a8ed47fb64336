//! Values that are read again in the background.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use netagg_core::{Error, causes};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Rejection;

/// How long one read may take.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A value that is read again as a whole, at an interval. Requests do not read it, so a flood of invented credentials causes no
/// flood of reads. If a read fails, the last value stays valid for a while.
#[derive(Debug)]
pub(super) struct Refreshing<T> {
    times: Times,
    value: RwLock<Option<(Instant, T)>>,
    /// Why the last read failed, if it failed.
    failure: RwLock<Option<String>>,
    refresh_wanted: Notify,
}

/// The name of a value, and the times of its reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The name of the value in the log and in readiness.
    pub(super) name: &'static str,
    /// The pause between two reads.
    pub(super) interval: Duration,
    /// The pause after a failed read, and the shortest pause if a caller needs an entry that the value does not have.
    pub(super) retry_interval: Duration,
    /// How long the last value stays valid.
    pub(super) grace: Duration,
}

impl<T> Refreshing<T> {
    pub(super) fn new(times: Times) -> Self {
        Self { times, value: RwLock::new(None), failure: RwLock::default(), refresh_wanted: Notify::new() }
    }

    /// Returns the result of `read` on the last value, or [`Rejection::Unavailable`] without a valid value.
    pub(super) fn with<R>(&self, read: impl FnOnce(&T) -> Result<R, Rejection>) -> Result<R, Rejection> {
        match &*self.value.read().unwrap_or_else(PoisonError::into_inner) {
            Some((read_at, value)) if read_at.elapsed() < self.times.grace => read(value),
            _ => Err(Rejection::Unavailable),
        }
    }

    /// Requests an early read: a caller needs an entry that the last value does not have, and that may exist by now.
    #[cfg(feature = "jwt")]
    pub(super) fn refresh_soon(&self) {
        self.refresh_wanted.notify_one();
    }

    /// Checks that the value is valid now. The error has the reason.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.with(|_| Ok(())).is_ok() {
            return Ok(());
        }
        match &*self.failure.read().unwrap_or_else(PoisonError::into_inner) {
            None => Err(format!("the {} were not read yet", self.times.name)),
            Some(failure) => Err(format!("the {} cannot be read: {failure}", self.times.name)),
        }
    }

    /// Reads the value again at the interval, until `shutdown`.
    pub(super) async fn refresh_loop<F>(&self, shutdown: &CancellationToken, read: impl Fn() -> F)
    where
        F: Future<Output = Result<T, Error>>,
    {
        while !shutdown.is_cancelled() {
            let read_at = Instant::now();
            let read = async {
                let value = tokio::time::timeout(READ_TIMEOUT, read()).await;
                value.map_err(|_| Error::unavailable("credentials", format!("no answer within {READ_TIMEOUT:?}")))?
            };
            let failure = match read.await {
                Ok(value) => {
                    *self.value.write().unwrap_or_else(PoisonError::into_inner) = Some((read_at, value));
                    None
                }
                // With all causes: "the request failed" alone does not help, but "connection refused" does.
                Err(error) => Some(causes(&error).join(": ")),
            };
            let has_failed = failure.is_some();
            let before =
                std::mem::replace(&mut *self.failure.write().unwrap_or_else(PoisonError::into_inner), failure.clone());
            if let (Some(error), None) = (failure, before) {
                tracing::warn!(
                    error,
                    what = self.times.name,
                    "cannot read these credentials; the values read before stay valid for a while"
                );
            }
            let early = async {
                tokio::join!(self.refresh_wanted.notified(), tokio::time::sleep(self.times.retry_interval));
            };
            let pause = if has_failed { self.times.retry_interval } else { self.times.interval };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                () = early => {}
            }
        }
    }
}

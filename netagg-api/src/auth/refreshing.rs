//! Values that are read again in the background.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use netagg_core::{Error, causes};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Refusal;

/// How long a reading may take.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A value that is read again at an interval, as a whole: callers with invented credentials cause no reading. When reading
/// fails, the last value stays valid for a while.
#[derive(Debug)]
pub(super) struct Refreshing<T> {
    times: Times,
    value: RwLock<Option<(Instant, T)>>,
    /// Why the last reading failed, if it did.
    failure: RwLock<Option<String>>,
    wanted: Notify,
}

/// The name of a value, and the times of its readings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The name of the value in the log and in readiness.
    pub(super) what: &'static str,
    /// The pause between two readings.
    pub(super) interval: Duration,
    /// The pause when something was missed in the last one.
    pub(super) hurried: Duration,
    /// How long the last reading is good.
    pub(super) grace: Duration,
}

impl<T> Refreshing<T> {
    pub(super) fn new(times: Times) -> Self {
        Self { times, value: RwLock::new(None), failure: RwLock::default(), wanted: Notify::new() }
    }

    /// The result of `look` on the last value.
    pub(super) fn with<R>(&self, look: impl FnOnce(&T) -> Result<R, Refusal>) -> Result<R, Refusal> {
        match &*self.value.read().unwrap_or_else(PoisonError::into_inner) {
            Some((read_at, value)) if read_at.elapsed() < self.times.grace => look(value),
            _ => Err(Refusal::Unavailable),
        }
    }

    /// Reads again soon: a caller missed an entry that may exist by now.
    #[cfg(feature = "jwt")]
    pub(super) fn refresh_soon(&self) {
        self.wanted.notify_one();
    }

    /// Whether callers can be told apart now.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.with(|_| Ok(())).is_ok() {
            return Ok(());
        }
        match &*self.failure.read().unwrap_or_else(PoisonError::into_inner) {
            None => Err(format!("the {} were not read yet", self.times.what)),
            Some(failure) => Err(format!("the {} cannot be read: {failure}", self.times.what)),
        }
    }

    /// Reads again and again until `shutdown`.
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
                // That a request failed says nothing, that the connection was refused does.
                Err(error) => Some(causes(&error).join(": ")),
            };
            let has_failed = failure.is_some();
            let before =
                std::mem::replace(&mut *self.failure.write().unwrap_or_else(PoisonError::into_inner), failure.clone());
            if let (Some(error), None) = (failure, before) {
                tracing::warn!(
                    error,
                    what = self.times.what,
                    "cannot be read; those known so far stay good for a while"
                );
            }
            let wanted = async {
                tokio::join!(self.wanted.notified(), tokio::time::sleep(self.times.hurried));
            };
            // After a failure the next reading is as wanted as can be.
            let pause = if has_failed { self.times.hurried } else { self.times.interval };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                () = wanted => {}
            }
        }
    }
}

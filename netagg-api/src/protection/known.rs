//! What callers are known by, as of a while ago.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use netagg_core::{Error, causes};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Refusal;

/// How long a reading may take.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What is read again and again, all at once, so that callers who make things up cost no reading; what was read last is
/// good for a while when it cannot be read again.
#[derive(Debug)]
pub(super) struct Known<T> {
    times: Times,
    value: RwLock<Option<(Instant, T)>>,
    /// Why the last reading failed, if it did.
    failure: RwLock<Option<String>>,
    wanted: Notify,
}

/// What it is, and how old it may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// What is read, as the log and readiness name it.
    pub(super) what: &'static str,
    /// The pause between two readings.
    pub(super) interval: Duration,
    /// The pause when something was missed in the last one.
    pub(super) hurried: Duration,
    /// How long the last reading is good.
    pub(super) grace: Duration,
}

impl<T> Known<T> {
    pub(super) fn new(times: Times) -> Self {
        Self { times, value: RwLock::new(None), failure: RwLock::default(), wanted: Notify::new() }
    }

    /// What `look` makes of the last reading.
    pub(super) fn with<R>(&self, look: impl FnOnce(&T) -> Result<R, Refusal>) -> Result<R, Refusal> {
        match &*self.value.read().unwrap_or_else(PoisonError::into_inner) {
            Some((read_at, value)) if read_at.elapsed() < self.times.grace => look(value),
            _ => Err(Refusal::Unavailable),
        }
    }

    /// Something was missed that may be there by now: the next reading comes soon.
    pub(super) fn hurry(&self) {
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
    pub(super) async fn keep_up<F>(&self, shutdown: &CancellationToken, read: impl Fn() -> F)
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

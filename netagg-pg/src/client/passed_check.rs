//! A check of the server that has passed, remembered for some time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When a check last passed.
#[derive(Debug, Default)]
pub(crate) struct PassedCheck(Mutex<Option<Instant>>);

impl PassedCheck {
    /// Whether the check passed less than `age` ago.
    pub(crate) fn is_younger_than(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < age)
    }

    /// Records that the check has just passed.
    pub(crate) fn record(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

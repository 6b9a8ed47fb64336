//! The circuit breaker: calls fail at once while the server does not answer, or accepts no writes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many calls in a row must fail before the circuit opens.
const FAILURES: u32 = 5;
/// How long an open circuit rejects calls before it admits the next attempt.
const REST: Duration = Duration::from_millis(500);

/// Counts failed calls. After several failures in a row, it opens: it admits one call every [`REST`], until a call succeeds.
#[derive(Debug)]
pub(crate) struct Circuit {
    state: Mutex<State>,
    /// How many calls in a row must fail before the circuit opens.
    failures: u32,
    /// The log message when the circuit opens.
    warning: &'static str,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    next_attempt: Option<Instant>,
}

impl Circuit {
    /// The circuit of all calls.
    pub(crate) fn of_answers() -> Self {
        Self { state: Mutex::default(), failures: FAILURES, warning: "redis does not answer; continuing without it" }
    }

    /// The circuit of writes. It opens after one failure: a server that accepts no writes keeps outdated responses.
    pub(crate) fn of_writes() -> Self {
        const WARNING: &str = "redis accepts no writes, so its responses may be outdated; continuing without it";
        Self { state: Mutex::default(), failures: 1, warning: WARNING }
    }

    /// Whether calls are rejected, except for attempts.
    pub(crate) fn is_open(&self) -> bool {
        self.state().next_attempt.is_some()
    }

    /// Whether a call may be made.
    pub(crate) fn admits(&self) -> bool {
        self.admits_at(Instant::now())
    }

    fn admits_at(&self, now: Instant) -> bool {
        let mut state = self.state();
        match state.next_attempt {
            Some(next) if now < next => false,
            Some(_) => {
                // Other calls are rejected while this call is tried.
                state.next_attempt = Some(now + REST);
                true
            }
            None => true,
        }
    }

    /// Records the outcome of a call.
    pub(crate) fn note<T, E: std::fmt::Display>(&self, result: &Result<T, E>) {
        self.note_at(result, Instant::now());
    }

    fn note_at<T, E: std::fmt::Display>(&self, result: &Result<T, E>, now: Instant) {
        let mut state = self.state();
        match result {
            Ok(_) => {
                if state.next_attempt.take().is_some() {
                    tracing::info!("redis answers again");
                }
                state.failures = 0;
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= self.failures && state.next_attempt.replace(now + REST).is_none() {
                    tracing::warn!(%error, "{}", self.warning);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_a_success() {
        let (circuit, now) = (Circuit::of_answers(), Instant::now());
        let (failed, succeeded) = (Err::<(), _>("unavailable"), Ok::<_, &str>(()));
        for _ in 1..FAILURES {
            circuit.note_at(&failed, now);
        }
        circuit.note_at(&succeeded, now);
        for _ in 0..FAILURES {
            assert!(circuit.admits_at(now));
            circuit.note_at(&failed, now);
        }
        assert!(!circuit.admits_at(now));
        assert!(circuit.admits_at(now + REST), "one call is admitted");
        assert!(!circuit.admits_at(now + REST), "other calls are rejected");
        circuit.note_at(&failed, now + REST);
        assert!(!circuit.admits_at(now + REST));
        assert!(circuit.admits_at(now + REST * 2));
        circuit.note_at(&succeeded, now + REST * 2);
        assert!(circuit.admits_at(now + REST * 2) && circuit.admits_at(now + REST * 2));
    }
}

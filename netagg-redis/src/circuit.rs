//! Spares callers a server that does not answer, or that takes no writes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many answers in a row must fail.
const FAILURES: u32 = 5;
/// How long calls are refused then, until one may try again.
const REST: Duration = Duration::from_millis(500);

/// Counts failures; after several in a row it admits one call every [`REST`], until one succeeds.
#[derive(Debug)]
pub(crate) struct Circuit {
    state: Mutex<State>,
    /// How many calls in a row must fail.
    failures: u32,
    /// What the log says then.
    trouble: &'static str,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    next_attempt: Option<Instant>,
}

impl Circuit {
    /// Of calls that a server answers.
    pub(crate) fn of_answers() -> Self {
        Self { state: Mutex::default(), failures: FAILURES, trouble: "redis does not answer; going on without it" }
    }

    /// Of writes. One that fails is enough: a server that takes no writes keeps outdated answers.
    pub(crate) fn of_writes() -> Self {
        const TROUBLE: &str = "redis takes no writes, so its answers may be outdated; going on without it";
        Self { state: Mutex::default(), failures: 1, trouble: TROUBLE }
    }

    /// Whether calls are refused, but for attempts.
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
                // the others wait how this one fares
                state.next_attempt = Some(now + REST);
                true
            }
            None => true,
        }
    }

    /// Notes how a call went.
    pub(crate) fn note<T, E: std::fmt::Display>(&self, result: &Result<T, E>) {
        self.note_at(result, Instant::now());
    }

    fn note_at<T, E: std::fmt::Display>(&self, result: &Result<T, E>, now: Instant) {
        let mut state = self.state();
        match result {
            Ok(_) => {
                if state.next_attempt.take().is_some() {
                    tracing::info!("redis is back");
                }
                state.failures = 0;
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= self.failures && state.next_attempt.replace(now + REST).is_none() {
                    tracing::warn!(%error, "{}", self.trouble);
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
        let (failed, succeeded) = (Err::<(), _>("away"), Ok::<_, &str>(()));
        for _ in 1..FAILURES {
            circuit.note_at(&failed, now);
        }
        circuit.note_at(&succeeded, now);
        for _ in 0..FAILURES {
            assert!(circuit.admits_at(now));
            circuit.note_at(&failed, now);
        }
        assert!(!circuit.admits_at(now));
        assert!(circuit.admits_at(now + REST), "one may try");
        assert!(!circuit.admits_at(now + REST), "the others wait");
        circuit.note_at(&failed, now + REST);
        assert!(!circuit.admits_at(now + REST));
        assert!(circuit.admits_at(now + REST * 2));
        circuit.note_at(&succeeded, now + REST * 2);
        assert!(circuit.admits_at(now + REST * 2) && circuit.admits_at(now + REST * 2));
    }
}

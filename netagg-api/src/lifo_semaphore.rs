//! Limits how many requests are answered at a time. Waiters are served last-in first-out.
//!
//! A waiter that gets no permit within its time gets 503. Under a load that is more than the server can answer, a queue in the
//! order of arrival lets every request wait as long as it may. Last-in first-out answers most requests as if there were no
//! others, and rejects the rest ([adaptive LIFO](https://queue.acm.org/detail.cfm?id=2839461)). Without such a load no request waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// A fixed number of permits.
#[derive(Clone, Debug)]
pub(crate) struct LifoSemaphore(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    arrivals: u64,
    /// By arrival. Empty while a permit is free.
    waiting: BTreeMap<u64, oneshot::Sender<Permit>>,
}

/// The permit of a request. The drop returns it.
#[derive(Debug)]
pub(crate) struct Permit(LifoSemaphore);

impl LifoSemaphore {
    /// A semaphore with `permits`.
    pub(crate) fn new(permits: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: permits, arrivals: 0, waiting: BTreeMap::new() })))
    }

    /// Waits for a permit, at most for `patience`.
    pub(crate) async fn take(&self, patience: Duration) -> Option<Permit> {
        let (_waiter, given) = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Some(Permit(self.clone()));
            }
            let arrival = state.arrivals;
            state.arrivals += 1;
            let (give, given) = oneshot::channel();
            state.waiting.insert(arrival, give);
            (Waiter { semaphore: self, arrival }, given)
        };
        tokio::time::timeout(patience, given).await.ok()?.ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiting request. The drop removes it from the queue.
struct Waiter<'a> {
    semaphore: &'a LifoSemaphore,
    arrival: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.semaphore.state().waiting.remove(&self.arrival);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let newest = {
            let mut state = self.0.state();
            let newest = state.waiting.pop_last();
            state.free += usize::from(newest.is_none());
            newest
        };
        if let Some((_, give)) = newest {
            // If the waiter was cancelled, the permit passes to the next waiter.
            drop(give.send(Permit(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use futures::{FutureExt, pin_mut};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_newest_waiter_is_served_first_and_the_oldest_times_out() {
        let semaphore = LifoSemaphore::new(1);
        let first = semaphore.take(LONG).await.expect("a free permit");
        let (old, new) = (semaphore.take(LONG), semaphore.take(LONG));
        pin_mut!(old, new);
        assert!((&mut old).now_or_never().is_none() && (&mut new).now_or_never().is_none());
        drop(first);
        assert!((&mut old).now_or_never().is_none(), "the newer waiter is served first");
        let second = new.now_or_never().flatten().expect("a permit for the newer waiter");
        assert!(old.await.is_none(), "the older waiter times out");
        drop(second);
        assert!(semaphore.take(Duration::ZERO).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_waiter_loses_no_permit() {
        let semaphore = LifoSemaphore::new(2);
        for round in 0..100 {
            let held = join_all((0..2).map(|_| semaphore.take(LONG))).await;
            let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(semaphore.take(LONG))).collect();
            assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
            // Some waiters are cancelled before they get a permit. Others get a permit and are cancelled before they see it.
            waiting.truncate(round % 6);
            drop(held);
            drop(waiting);
            let state = semaphore.state();
            assert_eq!((state.free, state.waiting.len()), (2, 0), "round {round}");
        }
    }
}

//! Turns: so many requests are answered at a time.
//!
//! Of those that wait, the newest is next, and those that have waited too long are told to come again. Under a load that is
//! more than can be answered, a queue in the order of arrival has everybody wait as long as anybody may; this way most
//! are answered as if there were no others, and the rest is refused
//! ([adaptive LIFO](https://queue.acm.org/detail.cfm?id=2839461)). Without such a load nobody waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// The turns that there are.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    arrivals: u64,
    /// By arrival; none while a turn is free.
    waiting: BTreeMap<u64, oneshot::Sender<Turn>>,
}

/// A request's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Turns);

impl Turns {
    /// So many.
    pub(crate) fn new(turns: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: turns, arrivals: 0, waiting: BTreeMap::new() })))
    }

    /// A turn, unless none comes within `patience`.
    pub(crate) async fn take(&self, patience: Duration) -> Option<Turn> {
        let (_place, given) = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Some(Turn(self.clone()));
            }
            let arrival = state.arrivals;
            state.arrivals += 1;
            let (give, given) = oneshot::channel();
            state.waiting.insert(arrival, give);
            (Place { turns: self, arrival }, given)
        };
        tokio::time::timeout(patience, given).await.ok()?.ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a request waits, until it is dropped.
struct Place<'a> {
    turns: &'a Turns,
    arrival: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.state().waiting.remove(&self.arrival);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let newest = {
            let mut state = self.0.state();
            let newest = state.waiting.pop_last();
            state.free += usize::from(newest.is_none());
            newest
        };
        if let Some((_, give)) = newest {
            // One who has just left drops it, and the next one has it.
            drop(give.send(Turn(self.0.clone())));
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
    async fn the_newest_is_next_and_the_oldest_gives_up() {
        let turns = Turns::new(1);
        let first = turns.take(LONG).await.expect("a free turn");
        let (old, new) = (turns.take(LONG), turns.take(LONG));
        pin_mut!(old, new);
        assert!((&mut old).now_or_never().is_none() && (&mut new).now_or_never().is_none());
        drop(first);
        assert!((&mut old).now_or_never().is_none(), "the newer one is first");
        let second = new.now_or_never().flatten().expect("its turn");
        assert!(old.await.is_none(), "nobody waits for ever");
        drop(second);
        assert!(turns.take(Duration::ZERO).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn no_turn_is_lost_with_who_leaves() {
        let turns = Turns::new(2);
        for round in 0..100 {
            let held = join_all((0..2).map(|_| turns.take(LONG))).await;
            let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(turns.take(LONG))).collect();
            assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
            // Some leave before they are given a turn, some after it and before they know.
            waiting.truncate(round % 6);
            drop(held);
            drop(waiting);
            let state = turns.state();
            assert_eq!((state.free, state.waiting.len()), (2, 0), "round {round}");
        }
    }
}

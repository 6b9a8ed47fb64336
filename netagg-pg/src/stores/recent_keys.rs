//! The keys of the last batches of a process: a hint about the keys that a batch must look up.
//!
//! Most duplicates come soon after their original, from a producer that sends again or from a redelivery. So a batch with
//! duplicates need not look up all its keys in the ledger: the recent keys are enough. The hint saves time and decides nothing. A
//! duplicate of an older event makes the `COPY` of the keys fail, and then the next batches look up all their keys again.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netagg_core::EventKey;

/// The number of keys after which the older half of the recent keys is forgotten. The two halves need about 5 MB.
const KEYS_PER_HALF: usize = 200_000;
/// How many batches in a row must have only recent duplicates before batches look up only recent keys.
const COVERED_BATCHES: u32 = 8;
/// After how many batches without a duplicate no keys are looked up, and none are kept.
const QUIET_BATCHES: u32 = 100;

/// Decides which keys of a batch are looked up before the other keys are copied into the ledger.
#[derive(Debug, Default)]
pub(super) struct RecentKeys(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lookups: Lookups,
    newer: HashSet<u64>,
    older: HashSet<u64>,
    /// How many batches in a row had only duplicates of recent keys.
    covered: u32,
    /// How many batches in a row had no duplicate.
    quiet: u32,
}

/// The keys that batches look up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lookups {
    /// No keys, because there are no duplicates.
    #[default]
    None,
    /// All keys, because duplicates may be of any age.
    All,
    /// The recent keys, because the last duplicates were recent.
    Recent,
}

/// The keys that a batch looks up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    pub(super) keys: Vec<EventKey>,
    /// The recent keys of the batch, in their order.
    recent: Vec<EventKey>,
}

impl RecentKeys {
    /// The keys that a batch with `keys` looks up. From now on, `keys` are recent. The keys must be in their order.
    pub(super) fn candidates(&self, keys: impl Iterator<Item = EventKey>) -> Candidates {
        let mut state = self.state();
        if state.lookups == Lookups::None {
            return Candidates { keys: Vec::new(), recent: Vec::new() };
        }
        let keys: Vec<_> = keys.collect();
        let recent: Vec<_> = keys.iter().copied().filter(|key| state.has(*key)).collect();
        state.add(&keys);
        match state.lookups {
            Lookups::Recent => Candidates { keys: recent.clone(), recent },
            _ => Candidates { keys, recent },
        }
    }

    /// Notes that a batch has copied its other keys, and that the ledger had the keys `known` already.
    pub(super) fn copied(&self, candidates: &Candidates, known: impl Iterator<Item = EventKey>) {
        let mut state = self.state();
        if state.lookups == Lookups::None {
            return;
        }
        let (mut is_quiet, mut is_covered) = (true, true);
        for key in known {
            is_quiet = false;
            is_covered &= candidates.recent.binary_search(&key).is_ok();
        }
        state.quiet = if is_quiet { state.quiet + 1 } else { 0 };
        state.covered = if is_covered { state.covered + 1 } else { 0 };
        if state.quiet >= QUIET_BATCHES {
            *state = State::default();
        } else if state.covered >= COVERED_BATCHES {
            state.lookups = Lookups::Recent;
        }
    }

    /// Notes a duplicate that no lookup has found.
    pub(super) fn missed(&self) {
        let mut state = self.state();
        (state.lookups, state.covered, state.quiet) = (Lookups::All, 0, 0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has(&self, key: EventKey) -> bool {
        let part = part(key);
        self.newer.contains(&part) || self.older.contains(&part)
    }

    fn add(&mut self, keys: &[EventKey]) {
        if self.newer.len() + keys.len() > KEYS_PER_HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.extend(keys.iter().map(|key| part(*key)));
    }
}

/// A part of the key is enough for a hint.
fn part(key: EventKey) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = key.to_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn keys(numbers: Range<u32>) -> Vec<EventKey> {
        let key = |number: u32| {
            let mut bytes = [0; 16];
            bytes[4..8].copy_from_slice(&number.to_be_bytes());
            EventKey::from_bytes(bytes)
        };
        numbers.map(key).collect()
    }

    /// A batch with `numbers`, of which the ledger has `known`. Returns the keys that it looks up.
    fn batch(recent: &RecentKeys, numbers: Range<u32>, known: Range<u32>) -> Vec<EventKey> {
        let candidates = recent.candidates(keys(numbers).into_iter());
        let found = keys(known).into_iter().filter(|key| candidates.keys.contains(key));
        recent.copied(&candidates, found.collect::<Vec<_>>().into_iter());
        candidates.keys
    }

    #[test]
    fn batches_look_up_recent_keys_once_all_duplicates_are_recent() {
        let recent = RecentKeys::default();
        assert_eq!(batch(&recent, 0..10, 0..0), [], "without duplicates no batch looks up keys");
        recent.missed();
        assert_eq!(batch(&recent, 5..15, 5..10), keys(5..15), "no key is recent yet");
        for first in (15..).step_by(5).take(COVERED_BATCHES as usize) {
            assert_eq!(batch(&recent, first - 5..first + 5, first - 5..first), keys(first - 5..first + 5));
        }
        assert_eq!(batch(&recent, 45..60, 45..55), keys(45..55));
        recent.missed();
        assert_eq!(batch(&recent, 55..65, 55..60), keys(55..65), "after an older duplicate, batches look up all keys");
    }

    #[test]
    fn older_duplicates_keep_the_lookups_of_all_keys() {
        let recent = RecentKeys::default();
        recent.missed();
        for first in (1_000..).step_by(10).take(50) {
            let all = || keys(0..1).into_iter().chain(keys(first..first + 10));
            let candidates = recent.candidates(all());
            assert!(candidates.keys.iter().copied().eq(all()));
            // The ledger has a key that no batch of this process had.
            recent.copied(&candidates, keys(9_999..10_000).into_iter());
        }
    }

    #[test]
    fn after_many_batches_without_a_duplicate_no_keys_are_kept() {
        let recent = RecentKeys::default();
        recent.missed();
        for first in (0..).step_by(10).take(QUIET_BATCHES as usize) {
            batch(&recent, first..first + 10, 0..0);
        }
        assert_eq!(batch(&recent, 0..10, 0..0), []);
        assert!(recent.state().newer.is_empty());
    }

    #[test]
    fn the_number_of_recent_keys_is_bounded() {
        let recent = RecentKeys::default();
        recent.missed();
        let size = 50_000;
        for first in (0..).step_by(size as usize).take(15) {
            recent.candidates(keys(first..first + size).into_iter());
        }
        let state = recent.state();
        assert!(state.newer.len() + state.older.len() <= 2 * KEYS_PER_HALF);
        assert!(state.has(keys(14 * size..14 * size + 1)[0]) && !state.has(keys(0..1)[0]));
    }
}

//! The keys of the last events of a process: a hint about the keys that a batch must look up.
//!
//! Most duplicates come soon after their original, from a producer that sends again or from a redelivery. So a batch with
//! duplicates need not look up all its keys in the ledger: the recent keys are enough. The hint saves time and decides nothing. A
//! duplicate of an older event makes the `COPY` of the keys fail, and then the next batches look up all their keys again.
//!
//! While there are no duplicates, the keys of the last batches only wait, because a filter costs much more than a list.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastbloom::BloomFilter;
use netagg_core::EventKey;

/// The number of keys after which the older half of the recent keys is forgotten.
const KEYS_PER_HALF: usize = 5_000_000;
/// The share of unknown keys that the Bloom filter of a half takes for recent keys. They are looked up, too. With this share, each
/// half needs 6 MB.
const FALSE_POSITIVES: f64 = 0.01;
/// How many of the last keys wait while there are no duplicates. They become recent with the first duplicate.
const WAITING_KEYS: usize = 100_000;
/// How many batches in a row must have only recent duplicates before batches look up only recent keys. Each duplicate that these
/// batches miss doubles the number.
const COVERED_BATCHES: u32 = 4;
const MAX_COVERED_BATCHES: u32 = 1_024;
/// After how many batches without a duplicate no keys are looked up.
const QUIET_BATCHES: u32 = 100;

/// Decides which keys of a batch are looked up before the other keys are copied into the ledger.
pub(super) struct RecentKeys {
    keys_per_half: usize,
    state: Mutex<State>,
}

impl fmt::Debug for RecentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The filters have millions of bits.
        f.debug_struct("RecentKeys").field("keys_per_half", &self.keys_per_half).finish_non_exhaustive()
    }
}

impl Default for RecentKeys {
    fn default() -> Self {
        Self::with_keys_per_half(KEYS_PER_HALF)
    }
}

#[derive(Default)]
struct State {
    lookups: Lookups,
    /// The last keys, while there are no duplicates.
    waiting: VecDeque<EventKey>,
    newer: Option<BloomFilter>,
    older: Option<BloomFilter>,
    /// The number of keys in the newer half.
    keys_of_newer: usize,
    /// How many batches in a row had only duplicates of recent keys.
    covered: u32,
    /// How often batches that looked up only recent keys have missed a duplicate.
    missed: u32,
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
    fn with_keys_per_half(keys_per_half: usize) -> Self {
        Self { keys_per_half, state: Mutex::default() }
    }

    /// The keys that a batch with `keys` looks up. From now on, `keys` are recent. The keys must be in their order.
    pub(super) fn candidates(&self, keys: impl Iterator<Item = EventKey>) -> Candidates {
        let keys: Vec<_> = keys.collect();
        let mut state = self.state();
        let recent: Vec<_> = keys.iter().copied().filter(|key| state.has(key)).collect();
        state.remember(&keys, self.keys_per_half);
        match state.lookups {
            Lookups::All => Candidates { keys, recent },
            _ => Candidates { keys: recent.clone(), recent },
        }
    }

    /// From now on, `keys` are recent.
    pub(super) fn remember(&self, keys: impl Iterator<Item = EventKey>) {
        let keys: Vec<_> = keys.collect();
        self.state().remember(&keys, self.keys_per_half);
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
        } else if state.covered >= state.needed() {
            state.lookups = Lookups::Recent;
        }
    }

    /// Notes a duplicate that no lookup has found.
    pub(super) fn missed(&self) {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        if !waiting.is_empty() {
            state.add(&Vec::from(waiting), self.keys_per_half);
        }
        // Several batches in flight may miss duplicates at the same time.
        if state.lookups == Lookups::Recent {
            state.missed += 1;
        }
        (state.lookups, state.covered, state.quiet) = (Lookups::All, 0, 0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many batches in a row must have only recent duplicates before batches look up only recent keys.
    fn needed(&self) -> u32 {
        COVERED_BATCHES.saturating_mul(2_u32.saturating_pow(self.missed)).min(MAX_COVERED_BATCHES)
    }

    fn has(&self, key: &EventKey) -> bool {
        [&self.newer, &self.older].into_iter().flatten().any(|half| half.contains(key))
    }

    /// Makes `keys` recent. Without duplicates, they only wait for the first duplicate, or until many later keys have come.
    fn remember(&mut self, keys: &[EventKey], keys_per_half: usize) {
        if self.lookups == Lookups::None {
            self.waiting.extend(keys);
            let surplus = self.waiting.len().saturating_sub(WAITING_KEYS);
            self.waiting.drain(..surplus);
        } else {
            self.add(keys, keys_per_half);
        }
    }

    fn add(&mut self, keys: &[EventKey], keys_per_half: usize) {
        if self.keys_of_newer + keys.len() > keys_per_half {
            self.older = self.newer.take();
            self.keys_of_newer = 0;
        }
        let newer = self
            .newer
            .get_or_insert_with(|| BloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(keys_per_half));
        newer.insert_all(keys);
        self.keys_of_newer += keys.len();
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn keys(numbers: Range<u32>) -> Vec<EventKey> {
        let key = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            EventKey::from_bytes(bytes)
        };
        numbers.map(key).collect()
    }

    /// Few enough keys that the filter takes no unknown key of a test for a recent key.
    fn recent_keys() -> RecentKeys {
        RecentKeys::with_keys_per_half(100_000)
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
        let recent = recent_keys();
        assert_eq!(batch(&recent, 0..10, 0..0), [], "without duplicates no batch looks up keys");
        recent.missed();
        let mut first = 5;
        for _ in 0..COVERED_BATCHES {
            assert_eq!(batch(&recent, first..first + 10, first..first + 5), keys(first..first + 10));
            first += 5;
        }
        assert_eq!(batch(&recent, first..first + 10, first..first + 5), keys(first..first + 5));
        recent.missed();
        for _ in 0..2 * COVERED_BATCHES {
            first += 5;
            assert_eq!(batch(&recent, first..first + 10, first..first + 5), keys(first..first + 10), "after a miss");
        }
        first += 5;
        assert_eq!(batch(&recent, first..first + 10, first..first + 5), keys(first..first + 5));
    }

    #[test]
    fn keys_of_small_batches_are_recent() {
        let recent = recent_keys();
        recent.remember(keys(0..5).into_iter());
        recent.missed();
        let candidates = recent.candidates(keys(3..10).into_iter());
        assert_eq!(candidates.recent, keys(3..5));
    }

    #[test]
    fn old_duplicates_keep_the_lookups_of_all_keys() {
        let recent = recent_keys();
        recent.missed();
        for first in (0..).step_by(10).take(50) {
            let candidates = recent.candidates(keys(first..first + 10).into_iter());
            assert_eq!(candidates.keys, keys(first..first + 10));
            // The ledger has a key that no earlier batch of this process had.
            recent.copied(&candidates, keys(first..first + 1).into_iter());
        }
    }

    #[test]
    fn after_many_batches_without_a_duplicate_no_keys_are_looked_up() {
        let recent = recent_keys();
        recent.missed();
        for first in (0..).step_by(10).take(QUIET_BATCHES as usize) {
            batch(&recent, first..first + 10, 0..0);
        }
        assert_eq!(batch(&recent, 0..10, 0..0), []);
    }

    #[test]
    fn the_last_keys_before_the_first_duplicate_are_recent() {
        let recent = RecentKeys::default();
        let half = WAITING_KEYS as u32 / 2;
        for first in [0, half, 2 * half] {
            assert_eq!(batch(&recent, first..first + half, 0..0), []);
        }
        recent.missed();
        let state = recent.state();
        assert!(state.waiting.is_empty());
        assert!(keys(half..3 * half).iter().all(|key| state.has(key)));
        assert!(keys(0..half).iter().any(|key| !state.has(key)), "the oldest keys are forgotten");
    }

    #[test]
    fn the_oldest_keys_are_forgotten() {
        let recent = RecentKeys::with_keys_per_half(1_000);
        recent.missed();
        for first in (0..).step_by(500).take(5) {
            recent.candidates(keys(first..first + 500).into_iter());
        }
        let state = recent.state();
        assert!(keys(1_000..2_500).iter().all(|key| state.has(key)), "between one and two halves are kept");
        let remembered = keys(0..1_000).iter().filter(|key| state.has(key)).count();
        assert!(remembered < 100, "a few unknown keys look recent: {remembered}");
    }
}

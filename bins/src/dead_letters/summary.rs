//! What a list has of a dead letter.

use std::cmp::Ordering;

use netagg_core::{Place, Timestamp};
use netagg_kafka::{LetterOrigin, StoredLetter};

/// Bytes of a key or a detail that a list keeps.
const MAX_KEPT: usize = 1_024;

/// A letter without its value, and with no more of the rest than has a bound. The newer one is the greater.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) time: Option<Timestamp>,
    pub(super) place: Place,
    pub(super) origin: Option<LetterOrigin>,
    pub(super) key: Option<Vec<u8>>,
}

impl Summary {
    pub(super) fn new(letter: StoredLetter) -> Self {
        let (time, place) = (letter.record.instant(), letter.place());
        let key = letter.record.key.map(|key| key[..key.len().min(MAX_KEPT)].to_vec());
        let mut origin = letter.origin;
        if let Some(origin) = &mut origin {
            origin.detail.truncate(origin.detail.floor_char_boundary(MAX_KEPT));
        }
        Self { time, place, origin, key }
    }

    fn rank(&self) -> (Option<Timestamp>, i32, i64) {
        (self.time, self.place.partition.number, self.place.offset)
    }
}

impl Ord for Summary {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Summary {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

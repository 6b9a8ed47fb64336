//! The newest dead letters.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use netagg_core::{Error, Place, Timestamp};

use super::filter::LetterFilter;
use super::reader::KafkaLetterReader;
use super::stored_letter::{LetterKind, LetterOrigin, StoredLetter};

/// How many bytes of a key or a detail a summary keeps.
const MAX_KEPT: usize = 1_024;

/// A letter without its value, of bounded size.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterSummary {
    /// When the letter was written.
    pub time: Option<Timestamp>,
    /// Where the letter lies.
    pub place: Place,
    /// What netagg's headers tell of it; `None` for a foreign message. At most 1,024 bytes of the detail.
    pub origin: Option<LetterOrigin>,
    /// At most 1,024 bytes of its key.
    pub key: Option<Vec<u8>>,
}

impl LetterSummary {
    fn new(letter: StoredLetter) -> Self {
        let (time, place) = (letter.record.instant(), letter.place());
        let key = letter.record.key.map(|key| key[..key.len().min(MAX_KEPT)].to_vec());
        let mut origin = letter.origin;
        if let Some(origin) = &mut origin {
            origin.detail.truncate(origin.detail.floor_char_boundary(MAX_KEPT));
        }
        Self { time, place, origin, key }
    }

    /// The kind of the letter.
    pub fn kind(&self) -> LetterKind {
        LetterKind::of(self.origin.as_ref())
    }
}

/// The newer summary is the greater one.
#[derive(Debug, PartialEq, Eq)]
struct ByAge(LetterSummary);

impl ByAge {
    fn rank(&self) -> (Option<Timestamp>, i32, i64) {
        (self.0.time, self.0.place.partition.number, self.0.place.offset)
    }
}

impl Ord for ByAge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl KafkaLetterReader {
    /// The `limit` newest letters that `filter` selects, the newest first. No more than these are in memory at a time.
    ///
    /// # Errors
    /// While the topic is not there or the broker is away.
    pub async fn newest(&self, filter: &LetterFilter, limit: usize) -> Result<Vec<LetterSummary>, Error> {
        let mut letters = self.read(filter.since).await?;
        let mut newest = BinaryHeap::new();
        while let Some(letter) = letters.next().await? {
            if filter.selects(&letter) {
                newest.push(Reverse(ByAge(LetterSummary::new(letter))));
                if newest.len() > limit {
                    newest.pop();
                }
            }
        }
        Ok(newest.into_sorted_vec().into_iter().map(|Reverse(ByAge(letter))| letter).collect())
    }
}

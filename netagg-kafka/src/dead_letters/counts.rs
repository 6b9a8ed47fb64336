//! How many dead letters there are of each kind.

use std::collections::BTreeMap;

use netagg_core::{Error, Timestamp};

use super::filter::LetterFilter;
use super::reader::KafkaLetterReader;
use super::replay_markers::Replayed;
use super::stored_letter::{LetterKind, StoredLetter};

/// The letters of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterCount {
    /// How many there are.
    pub letters: u64,
    /// How many of these have been sent again.
    pub replayed: u64,
    /// When the first one was written.
    pub first: Option<Timestamp>,
    /// When the last one was written.
    pub last: Option<Timestamp>,
}

impl LetterCount {
    fn add(&mut self, letter: &StoredLetter, replayed: &Replayed) {
        let time = letter.record.instant();
        let is_replayed = letter.origin.as_ref().is_some_and(|origin| replayed.contains(&origin.source));
        *self = self.plus(Self { letters: 1, replayed: u64::from(is_replayed), first: time, last: time });
    }

    /// The letters of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            letters: self.letters + other.letters,
            replayed: self.replayed + other.replayed,
            first: self.first.into_iter().chain(other.first).min(),
            last: self.last.max(other.last),
        }
    }
}

impl KafkaLetterReader {
    /// Counts the letters that `filter` selects, by kind. A kind without letters is absent.
    ///
    /// # Errors
    /// While the topic is not there or the broker is away.
    pub async fn count(&self, filter: &LetterFilter) -> Result<BTreeMap<LetterKind, LetterCount>, Error> {
        let replayed = Replayed::read(self.config(), self.topic()).await?;
        let mut letters = self.read(filter.since).await?;
        let mut counts = BTreeMap::<_, LetterCount>::new();
        while let Some(letter) = letters.next().await? {
            if filter.selects(&letter) {
                counts.entry(letter.kind()).or_default().add(&letter, &replayed);
            }
        }
        Ok(counts)
    }
}

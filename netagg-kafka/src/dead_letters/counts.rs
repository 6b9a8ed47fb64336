//! The number of dead letters of each kind.

use std::collections::BTreeMap;

use netagg_core::{Error, Timestamp};

use super::dlq_record::{DlqKind, DlqRecord};
use super::filter::DlqFilter;
use super::reader::DlqReader;
use super::replay_markers::Replayed;

/// The counts of the dead letters of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DlqCount {
    /// How many dead letters there are.
    pub dead_letters: u64,
    /// How many of these dead letters have been sent again.
    pub replayed: u64,
    /// When the first dead letter was written.
    pub first: Option<Timestamp>,
    /// When the last dead letter was written.
    pub last: Option<Timestamp>,
}

impl DlqCount {
    fn add(&mut self, dead_letter: &DlqRecord, replayed: &Replayed) {
        let time = dead_letter.record.instant();
        let is_replayed = dead_letter.origin.as_ref().is_some_and(|origin| replayed.contains(&origin.source));
        *self = self.plus(Self { dead_letters: 1, replayed: u64::from(is_replayed), first: time, last: time });
    }

    /// The counts of both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            dead_letters: self.dead_letters + other.dead_letters,
            replayed: self.replayed + other.replayed,
            first: self.first.into_iter().chain(other.first).min(),
            last: self.last.max(other.last),
        }
    }
}

impl DlqReader {
    /// Counts the dead letters that `filter` selects, by kind. A kind without dead letters is absent.
    ///
    /// # Errors
    /// While the topic does not exist or the broker is unavailable.
    pub async fn count(&self, filter: &DlqFilter) -> Result<BTreeMap<DlqKind, DlqCount>, Error> {
        let replayed = Replayed::read(self.config(), self.topic()).await?;
        let mut dead_letters = self.read(filter.since).await?;
        let mut counts = BTreeMap::<_, DlqCount>::new();
        while let Some(dead_letter) = dead_letters.next().await? {
            if filter.selects(&dead_letter) {
                counts.entry(dead_letter.kind()).or_default().add(&dead_letter, &replayed);
            }
        }
        Ok(counts)
    }
}

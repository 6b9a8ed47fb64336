//! The newest dead letters.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use netagg_core::{Error, RecordPosition, Timestamp};

use super::dlq_record::{DlqKind, DlqOrigin, DlqRecord};
use super::filter::DlqFilter;
use super::reader::DlqReader;

/// The maximum number of bytes of a key or a detail that a summary keeps.
const MAX_KEPT: usize = 1_024;

/// A dead letter without its value, of bounded size.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DlqSummary {
    /// When the dead letter was written.
    pub time: Option<Timestamp>,
    /// The position of the dead letter.
    pub position: RecordPosition,
    /// The origin that netagg's headers describe, with at most 1,024 bytes of the detail. `None` for a foreign message.
    pub origin: Option<DlqOrigin>,
    /// The first 1,024 bytes of the key, at most.
    pub key: Option<Vec<u8>>,
}

impl DlqSummary {
    fn new(dead_letter: DlqRecord) -> Self {
        let (time, position) = (dead_letter.record.instant(), dead_letter.position());
        let key = dead_letter.record.key.map(|key| key[..key.len().min(MAX_KEPT)].to_vec());
        let mut origin = dead_letter.origin;
        if let Some(origin) = &mut origin {
            origin.detail.truncate(origin.detail.floor_char_boundary(MAX_KEPT));
        }
        Self { time, position, origin, key }
    }

    /// The kind of the dead letter.
    pub fn kind(&self) -> DlqKind {
        DlqKind::of(self.origin.as_ref())
    }
}

/// A summary that is ordered by its time: a newer summary is greater.
#[derive(Debug, PartialEq, Eq)]
struct ByAge(DlqSummary);

impl ByAge {
    fn rank(&self) -> (Option<Timestamp>, i32, i64) {
        (self.0.time, self.0.position.partition.number, self.0.position.offset)
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

impl DlqReader {
    /// The `limit` newest dead letters that `filter` selects, the newest first. Memory holds no more than `limit` summaries
    /// at a time.
    ///
    /// # Errors
    /// While the topic does not exist or the broker is unavailable.
    pub async fn newest(&self, filter: &DlqFilter, limit: usize) -> Result<Vec<DlqSummary>, Error> {
        let mut dead_letters = self.read(filter.since).await?;
        let mut newest = BinaryHeap::new();
        while let Some(dead_letter) = dead_letters.next().await? {
            if filter.selects(&dead_letter) {
                newest.push(Reverse(ByAge(DlqSummary::new(dead_letter))));
                if newest.len() > limit {
                    newest.pop();
                }
            }
        }
        Ok(newest.into_sorted_vec().into_iter().map(|Reverse(ByAge(dead_letter))| dead_letter).collect())
    }
}

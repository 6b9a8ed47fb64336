//! The progress of a store: the processed offsets of each partition, and the instant up to which they are complete.

use std::collections::{BTreeMap, HashMap};

use crate::record::{PartitionId, Position, Span};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The processed offsets of each partition, as ranges that neither overlap nor touch.
    done: HashMap<PartitionId, BTreeMap<i64, i64>>,
    complete: Option<Complete>,
}

/// The store contains every record that `topic` held at the instant `through`.
#[derive(Debug)]
struct Complete {
    topic: String,
    through: Timestamp,
}

impl Progress {
    /// Adds the offsets of `spans`.
    pub(super) fn add(&mut self, spans: &[Span]) {
        for span in spans {
            let ranges = self.done.entry(span.partition.clone()).or_default();
            let (mut from, mut to) = (span.from, span.to);
            while let Some((&start, &end)) = ranges.range(..=to).next_back()
                && end >= from
            {
                ranges.remove(&start);
                (from, to) = (from.min(start), to.max(end));
            }
            ranges.insert(from, to);
        }
    }

    /// The ranges of `partition` in ascending order. Each end is exclusive.
    pub(super) fn ranges(&self, partition: &PartitionId) -> Vec<std::ops::Range<i64>> {
        self.done.get(partition).into_iter().flatten().map(|(&from, &to)| from..to).collect()
    }

    /// Records that the store has processed all records that `topic` held at `through`. Returns false, and records nothing, if
    /// an offset below a `committed` position is not processed.
    pub(super) fn note_complete(&mut self, topic: &str, through: Timestamp, committed: &[Position]) -> bool {
        if !committed.iter().all(|position| self.agrees_with(position)) {
            return false;
        }
        let earlier = self.complete.take().filter(|complete| complete.topic == topic);
        let through = earlier.map_or(through, |earlier| earlier.through.max(through));
        self.complete = Some(Complete { topic: topic.to_owned(), through });
        true
    }

    /// Whether all offsets from the first processed offset up to `position` are processed.
    fn agrees_with(&self, position: &Position) -> bool {
        let first = self.done.get(&position.partition).and_then(BTreeMap::first_key_value);
        first.map_or(position.next_offset == 0, |(_, end)| position.next_offset <= *end)
    }

    pub(super) fn complete_through(&self) -> Option<Timestamp> {
        self.complete.as_ref().map(|complete| complete.through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_in_any_order() {
        let partition = PartitionId::new("events", 0);
        let span = |from, to| Span { partition: partition.clone(), from, to, records: 0, last_timestamp: None };
        let mut progress = Progress::default();
        progress.add(&[span(10, 20), span(30, 40)]);
        assert_eq!(progress.ranges(&partition), [10..20, 30..40]);
        progress.add(&[span(15, 25), span(0, 5)]);
        assert_eq!(progress.ranges(&partition), [0..5, 10..25, 30..40]);
        progress.add(&[span(25, 30), span(4, 11)]);
        assert_eq!(progress.ranges(&partition), std::iter::once(0..40).collect::<Vec<_>>());
    }
}

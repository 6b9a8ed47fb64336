//! The progress of a store: the processed offsets of each partition.

use std::collections::{BTreeMap, HashMap};

use crate::record::{PartitionId, Span};

/// The processed offsets of each partition, as ranges that neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct Progress(HashMap<PartitionId, BTreeMap<i64, i64>>);

impl Progress {
    /// Adds the offsets of `spans`.
    pub(super) fn add(&mut self, spans: &[Span]) {
        for span in spans {
            let ranges = self.0.entry(span.partition.clone()).or_default();
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
        self.0.get(partition).into_iter().flatten().map(|(&from, &to)| from..to).collect()
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

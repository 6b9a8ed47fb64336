//! Batches of items with an identity. The items are distinct and sorted, and the batch has the spans that they came from.

use std::ops::AddAssign;

use crate::aggregate::Contribution;
use crate::event::{EventKey, IdentifiedEvent, Identity};
use crate::record::{PartitionId, RecordPosition, Span};
use crate::time::Day;

/// The largest number of items for which a builder reserves memory, even if its spans have more records.
const MAX_RESERVED_ITEMS: usize = 100_000;

/// Two copies of one identity with different contents.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Conflict {
    /// The copy that stays.
    pub kept: Identity,
    /// The copy that was dropped.
    pub dropped: Identity,
    /// The position of the dropped copy; `None` if it was not read from a log.
    pub position: Option<RecordPosition>,
}

/// An item that has an [`Identity`].
pub trait Identified {
    /// The identity of the item.
    fn identity(&self) -> Identity;
}

impl Identified for IdentifiedEvent {
    fn identity(&self) -> Identity {
        self.identity
    }
}

impl Identified for Contribution {
    fn identity(&self) -> Identity {
        self.identity
    }
}

/// Items with distinct identities, in the order of their keys, with their later copies and the spans that all of them came
/// from.
///
/// Because of this order, concurrent writers of a ledger take their locks in the same order. So they wait for each other and
/// never deadlock.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    items: Vec<T>,
    /// The origin of each of `items`, at the same index.
    origins: Vec<Origin>,
    /// Later copies of `items`, in the order of `items`. Copies of one identity are in the order in which they were read.
    repeats: Vec<(Identity, Origin)>,
    spans: Vec<Span>,
    /// The number of records without a valid event in each of `spans`.
    invalid: Vec<u64>,
}

/// The index of the span that an item was read in, and its offset. `None` if the item was not read from a log.
type Origin = Option<(usize, i64)>;

impl<T: Identified> Batch<T> {
    /// A batch that was not read from a log. The first item of each identity stays, and later ones are copies.
    pub fn new(items: Vec<T>) -> Self {
        Self::of(items.into_iter().map(|item| (item, None)).collect(), Vec::new(), Vec::new())
    }

    /// A builder for a batch of the records in `spans`. Add the records in the order in which they were read.
    pub fn builder(spans: Vec<Span>) -> BatchBuilder<T> {
        let records: u64 = spans.iter().map(|span| span.records).sum();
        let capacity = usize::try_from(records).unwrap_or(MAX_RESERVED_ITEMS).min(MAX_RESERVED_ITEMS);
        BatchBuilder { items: Vec::with_capacity(capacity), invalid: vec![0; spans.len()], spans }
    }

    fn of(all: Vec<(T, Origin)>, spans: Vec<Span>, invalid: Vec<u64>) -> Self {
        // Items are large. Sorting keys and indexes instead moves each item only once.
        let mut order: Vec<_> = all.iter().map(|(item, _)| item.identity().key).zip(0_usize..).collect();
        order.sort_unstable(); // also by index, so the first copy stays first
        let mut all: Vec<Option<(T, Origin)>> = all.into_iter().map(Some).collect();
        let (mut items, mut origins) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()));
        let (mut repeats, mut last) = (Vec::new(), None);
        for (key, at) in order {
            let Some((item, origin)) = all[at].take() else { continue };
            if last.replace(key) == Some(key) {
                repeats.push((item.identity(), origin));
            } else {
                items.push(item);
                origins.push(origin);
            }
        }
        Self { items, origins, repeats, spans, invalid }
    }

    /// The distinct items, in the order of their keys.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// The spans of the log that are processed once this batch is stored.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Decides for each record whether it is new, a duplicate or a conflict. `known` returns the identity that the ledger knew
    /// before under a key.
    ///
    /// The first item of a key is new if the key is not known. All other items are duplicates or conflicts.
    pub fn resolve(&self, known: impl Fn(&EventKey) -> Option<Identity>) -> BatchOutcome {
        let mut outcome = BatchOutcome {
            span_counts: self.invalid.iter().map(|&invalid| SpanCounts { invalid, ..SpanCounts::default() }).collect(),
            ..BatchOutcome::default()
        };
        let mut repeats = self.repeats.iter().peekable();
        for (item, &origin) in self.items.iter().zip(&self.origins) {
            let identity = item.identity();
            let kept = match known(&identity.key) {
                Some(kept) => {
                    self.drop_copy(kept, identity, origin, &mut outcome);
                    kept
                }
                None => {
                    outcome.new += 1;
                    outcome.days.push(identity.day);
                    outcome.update_span_counts(origin, |counts| counts.accepted += 1);
                    identity
                }
            };
            while let Some(&(dropped, origin)) = repeats.next_if(|(repeat, _)| repeat.key == identity.key) {
                self.drop_copy(kept, dropped, origin, &mut outcome);
            }
        }
        outcome.days.sort_unstable();
        outcome.days.dedup();
        outcome
    }

    fn drop_copy(&self, kept: Identity, dropped: Identity, origin: Origin, outcome: &mut BatchOutcome) {
        if kept.content == dropped.content {
            outcome.duplicates += 1;
            outcome.update_span_counts(origin, |counts| counts.duplicates += 1);
            return;
        }
        outcome.update_span_counts(origin, |counts| counts.conflicts += 1);
        let position = origin.and_then(|(span, offset)| {
            self.spans.get(span).map(|span| RecordPosition { partition: span.partition.clone(), offset })
        });
        outcome.conflicts.push(Conflict { kept, dropped, position });
    }
}

/// Builds a [`Batch`] from the records that were read in its spans.
#[derive(Debug)]
pub struct BatchBuilder<T> {
    items: Vec<(T, Origin)>,
    spans: Vec<Span>,
    invalid: Vec<u64>,
}

impl<T: Identified> BatchBuilder<T> {
    /// Adds the item that was read at `offset` of `partition`.
    pub fn push(&mut self, partition: &PartitionId, offset: i64, item: T) {
        let origin = self.span(partition, offset).map(|span| (span, offset));
        self.items.push((item, origin));
    }

    /// Counts a record without a valid event.
    pub fn reject(&mut self, partition: &PartitionId, offset: i64) {
        if let Some(span) = self.span(partition, offset) {
            self.invalid[span] += 1;
        }
    }

    /// Returns the batch.
    pub fn build(self) -> Batch<T> {
        Batch::of(self.items, self.spans, self.invalid)
    }

    /// The index of the span that a record belongs to. A consumer has few partitions, so a batch has few spans.
    fn span(&self, partition: &PartitionId, offset: i64) -> Option<usize> {
        let covers = |span: &Span| (span.from..span.to).contains(&offset) && span.partition == *partition;
        self.spans.iter().position(covers)
    }
}

/// How many records of a batch were new, duplicates, conflicts or invalid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct BatchOutcome {
    /// The number of new items.
    pub new: u64,
    /// The number of items that were known before with the same content. Copies within the batch are included.
    pub duplicates: u64,
    /// The items that were known before with other content. Copies within the batch are included.
    pub conflicts: Vec<Conflict>,
    /// The days whose totals may have changed, in order.
    pub days: Vec<Day>,
    /// The counts for each span of the batch, in the order of the spans.
    pub span_counts: Vec<SpanCounts>,
}

impl BatchOutcome {
    /// Changes the counts of the span that an item came from, if it came from a span.
    fn update_span_counts(&mut self, origin: Origin, count: impl FnOnce(&mut SpanCounts)) {
        if let Some(counts) = origin.and_then(|(span, _)| self.span_counts.get_mut(span)) {
            count(counts);
        }
    }
}

/// How many records of a [`Span`] were new, duplicates, conflicts or invalid. The sum is [`Span::records`], unless a record was
/// lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct SpanCounts {
    /// The number of new events.
    pub accepted: u64,
    /// The number of events that were known before with the same content.
    pub duplicates: u64,
    /// The number of events that were known before with other content.
    pub conflicts: u64,
    /// The number of records without a valid event.
    pub invalid: u64,
}

impl AddAssign for SpanCounts {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.invalid += other.invalid;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ContentHash;

    #[derive(Clone, Debug, PartialEq)]
    struct Item(Identity);

    impl Identified for Item {
        fn identity(&self) -> Identity {
            self.0
        }
    }

    fn item(key: u8, content: i64) -> Item {
        Item(Identity {
            key: EventKey::from_bytes([key; 16]),
            content: ContentHash::from_i64(content),
            day: "2025-10-20".parse().expect("valid"),
        })
    }

    const NOTHING_KNOWN: fn(&EventKey) -> Option<Identity> = |_| None;

    #[test]
    fn the_first_of_each_identity_is_kept_in_the_order_of_keys() {
        let batch = Batch::new(vec![item(2, 1), item(1, 7), item(2, 1), item(2, 9), item(1, 7)]);
        assert_eq!(batch.items(), [item(1, 7), item(2, 1)]);
        let outcome = batch.resolve(NOTHING_KNOWN);
        assert_eq!((outcome.new, outcome.duplicates), (2, 2));
        assert_eq!(outcome.conflicts, [Conflict { kept: item(2, 1).0, dropped: item(2, 9).0, position: None }]);
    }

    #[test]
    fn every_copy_is_judged_by_the_one_that_counts() {
        let batch = Batch::new(vec![item(1, 7), item(1, 8), item(1, 7)]);
        let outcome = batch.resolve(|_| Some(item(1, 8).0));
        assert_eq!((outcome.new, outcome.duplicates, outcome.conflicts.len()), (0, 1, 2));
        assert!(outcome.days.is_empty());
    }

    #[test]
    fn every_record_counts_in_its_span() {
        let partitions = [0, 1].map(|number| PartitionId::new("events", number));
        let spans =
            partitions.clone().map(|partition| Span { partition, from: 5, to: 9, records: 4, last_timestamp: None });
        let mut builder = Batch::builder(spans.to_vec());
        for (partition, offset, item) in
            [(0, 5, item(1, 7)), (0, 6, item(1, 8)), (1, 5, item(1, 7)), (1, 6, item(2, 1))]
        {
            builder.push(&partitions[partition], offset, item);
        }
        builder.reject(&partitions[0], 7);
        let outcome = builder.build().resolve(|key| (*key == item(2, 1).0.key).then_some(item(2, 1).0));
        assert_eq!(
            outcome.span_counts,
            [
                SpanCounts { accepted: 1, conflicts: 1, invalid: 1, ..SpanCounts::default() },
                SpanCounts { duplicates: 2, ..SpanCounts::default() }
            ]
        );
        let position = Some(RecordPosition { partition: partitions[0].clone(), offset: 6 });
        assert_eq!(outcome.conflicts, [Conflict { kept: item(1, 7).0, dropped: item(1, 8).0, position }]);
    }
}

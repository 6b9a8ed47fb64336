//! Batches of items with an identity: distinct, sorted, and with the stretch of the log they came from.

use std::ops::AddAssign;

use crate::aggregate::Contribution;
use crate::event::{EventKey, IdentifiedEvent, Identity};
use crate::record::{PartitionId, Place, Span};
use crate::time::Day;

/// For how many items a builder reserves memory at most, whatever its spans say.
const MAX_RESERVED_ITEMS: usize = 100_000;

/// One identity that came with two contents.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Conflict {
    /// The copy that counts.
    pub kept: Identity,
    /// The copy that was dropped.
    pub dropped: Identity,
    /// Where the dropped copy lies; `None` if it came from no log.
    pub place: Option<Place>,
}

/// Something that has an [`Identity`].
pub trait Identified {
    /// Its identity.
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

/// Items of distinct identity in the order of their keys, the copies that came after them, and the stretches of the log
/// they all came from.
///
/// The order lets concurrent writers of a ledger lock in one order, so that they wait for each other and never
/// deadlock.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    items: Vec<T>,
    /// Those of `items`, one for each.
    origins: Vec<Origin>,
    /// Later copies of `items`, in the order they were read among those of one identity.
    repeats: Vec<(Identity, Origin)>,
    spans: Vec<Span>,
    /// Records without a valid event, for each of `spans`.
    invalid: Vec<u64>,
}

/// Which span an item was read in, and at what offset; `None` if it came from no log.
type Origin = Option<(usize, i64)>;

impl<T: Identified> Batch<T> {
    /// A batch that comes from no log. Of one identity, the first of `items` is taken.
    pub fn new(items: Vec<T>) -> Self {
        Self::of(items.into_iter().map(|item| (item, None)).collect(), Vec::new(), Vec::new())
    }

    /// A batch of what was read in `spans`, to be filled in the order it was read.
    pub fn builder(spans: Vec<Span>) -> BatchBuilder<T> {
        let records: u64 = spans.iter().map(|span| span.records).sum();
        let capacity = usize::try_from(records).unwrap_or(MAX_RESERVED_ITEMS).min(MAX_RESERVED_ITEMS);
        BatchBuilder { items: Vec::with_capacity(capacity), invalid: vec![0; spans.len()], spans }
    }

    fn of(all: Vec<(T, Origin)>, spans: Vec<Span>, invalid: Vec<u64>) -> Self {
        // Keys and positions are sorted instead of items, which are large: each item moves once.
        let mut order: Vec<_> = all.iter().map(|(item, _)| item.identity().key).zip(0_usize..).collect();
        order.sort_unstable(); // by position, too: the first read stays first
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

    /// The stretches of the log that are done with once this batch is.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// What becomes of every record, given which identities the ledger knew before: an item whose key isn't `known` is
    /// new, whatever comes with a known key, or after the first of this batch, is a duplicate or a conflict.
    pub fn judge(&self, known: impl Fn(&EventKey) -> Option<Identity>) -> BatchOutcome {
        let mut outcome = BatchOutcome {
            tallies: self.invalid.iter().map(|&invalid| Tally { invalid, ..Tally::default() }).collect(),
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
                    outcome.tally(origin, |tally| tally.accepted += 1);
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
            outcome.tally(origin, |tally| tally.duplicates += 1);
            return;
        }
        outcome.tally(origin, |tally| tally.conflicts += 1);
        let place = origin.and_then(|(span, offset)| {
            self.spans.get(span).map(|span| Place { partition: span.partition.clone(), offset })
        });
        outcome.conflicts.push(Conflict { kept, dropped, place });
    }
}

/// A [`Batch`] that is being filled with what was read in its spans.
#[derive(Debug)]
pub struct BatchBuilder<T> {
    items: Vec<(T, Origin)>,
    spans: Vec<Span>,
    invalid: Vec<u64>,
}

impl<T: Identified> BatchBuilder<T> {
    /// Adds what was read at `offset` of `partition`.
    pub fn push(&mut self, partition: &PartitionId, offset: i64, item: T) {
        let origin = self.span(partition, offset).map(|span| (span, offset));
        self.items.push((item, origin));
    }

    /// Counts a record that holds no valid event.
    pub fn reject(&mut self, partition: &PartitionId, offset: i64) {
        if let Some(span) = self.span(partition, offset) {
            self.invalid[span] += 1;
        }
    }

    /// The batch.
    pub fn build(self) -> Batch<T> {
        Batch::of(self.items, self.spans, self.invalid)
    }

    /// Which span a record belongs to. There are as many as a consumer has partitions: few.
    fn span(&self, partition: &PartitionId, offset: i64) -> Option<usize> {
        let covers = |span: &Span| (span.from..span.to).contains(&offset) && span.partition == *partition;
        self.spans.iter().position(covers)
    }
}

/// What became of a batch's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct BatchOutcome {
    /// Items that were new.
    pub new: u64,
    /// Items that were there before with the same content, those within the batch included.
    pub duplicates: u64,
    /// Items that were there before with other content, those within the batch included.
    pub conflicts: Vec<Conflict>,
    /// The days whose totals may have changed, in order.
    pub days: Vec<Day>,
    /// What became of the records of each of the batch's spans.
    pub tallies: Vec<Tally>,
}

impl BatchOutcome {
    /// Counts in the tally of the span an item came from, if it came from one.
    fn tally(&mut self, origin: Origin, count: impl FnOnce(&mut Tally)) {
        if let Some(tally) = origin.and_then(|(span, _)| self.tallies.get_mut(span)) {
            count(tally);
        }
    }
}

/// What became of the records of a [`Span`]: their sum is [`Span::records`], or a record was lost on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Tally {
    /// Events that were new.
    pub accepted: u64,
    /// Events that were there before with the same content.
    pub duplicates: u64,
    /// Events that were there before with other content.
    pub conflicts: u64,
    /// Records that hold no valid event.
    pub invalid: u64,
}

impl AddAssign for Tally {
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
        let outcome = batch.judge(NOTHING_KNOWN);
        assert_eq!((outcome.new, outcome.duplicates), (2, 2));
        assert_eq!(outcome.conflicts, [Conflict { kept: item(2, 1).0, dropped: item(2, 9).0, place: None }]);
    }

    #[test]
    fn every_copy_is_judged_by_the_one_that_counts() {
        let batch = Batch::new(vec![item(1, 7), item(1, 8), item(1, 7)]);
        let outcome = batch.judge(|_| Some(item(1, 8).0));
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
        let outcome = builder.build().judge(|key| (*key == item(2, 1).0.key).then_some(item(2, 1).0));
        assert_eq!(
            outcome.tallies,
            [
                Tally { accepted: 1, conflicts: 1, invalid: 1, ..Tally::default() },
                Tally { duplicates: 2, ..Tally::default() }
            ]
        );
        let place = Some(Place { partition: partitions[0].clone(), offset: 6 });
        assert_eq!(outcome.conflicts, [Conflict { kept: item(1, 7).0, dropped: item(1, 8).0, place }]);
    }
}

//! Batches of items with an identity: distinct, sorted, and with the stretch of the log they came from.

use crate::aggregate::Contribution;
use crate::event::{ContentHash, Event, EventKey};
use crate::record::Span;
use crate::time::Day;

/// The identity of an item, what tells its content apart, and the day it counts under: what a ledger keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Identity {
    /// Which event it is.
    pub key: EventKey,
    /// What it says.
    pub content: ContentHash,
    /// The UTC day it counts under.
    pub day: Day,
}

impl Identity {
    /// The identity of `event`.
    pub fn of(event: &Event) -> Self {
        Self { key: event.key(), content: event.content_hash(), day: event.day() }
    }
}

/// One identity that came with two contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Conflict {
    /// The copy that counts.
    pub kept: Identity,
    /// The copy that was dropped.
    pub dropped: Identity,
}

/// Something that has an [`Identity`].
pub trait Identified {
    /// Its identity.
    fn identity(&self) -> Identity;
}

/// An event with its identity, which is derived once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct IdentifiedEvent {
    /// Derived from `event`.
    pub identity: Identity,
    /// The event.
    pub event: Event,
}

impl From<Event> for IdentifiedEvent {
    fn from(event: Event) -> Self {
        Self { identity: Identity::of(&event), event }
    }
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

/// Items of distinct identity in the order of their keys, and what the batch is made of.
///
/// The order lets concurrent writers of a ledger lock in one order, so that they wait for each other and never
/// deadlock.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    items: Vec<T>,
    spans: Vec<Span>,
    duplicates: u64,
    conflicts: Vec<Conflict>,
}

impl<T: Identified> Batch<T> {
    /// Keeps the first of each identity in `items`, which are in the order they were read; the others are counted as
    /// duplicates or conflicts.
    pub fn new(mut items: Vec<T>, spans: Vec<Span>) -> Self {
        let (mut duplicates, mut conflicts) = (0, Vec::new());
        items.sort_by_cached_key(|item| item.identity().key); // stable: the first read stays first
        items.dedup_by(|later, first| {
            let (kept, dropped) = (first.identity(), later.identity());
            if kept.key != dropped.key {
                return false;
            }
            if kept.content == dropped.content {
                duplicates += 1;
            } else {
                conflicts.push(Conflict { kept, dropped });
            }
            true
        });
        Self { items, spans, duplicates, conflicts }
    }

    /// The distinct items, in the order of their keys.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// The stretches of the log that are done with once this batch is.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// How many plain duplicates the batch itself held.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The conflicting duplicates that the batch itself held.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }
}

/// What became of a batch's items.
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
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_first_of_each_identity_is_kept_in_the_order_of_keys() {
        let batch = Batch::new(vec![item(2, 1), item(1, 7), item(2, 1), item(2, 9), item(1, 7)], Vec::new());
        assert_eq!(batch.items(), [item(1, 7), item(2, 1)]);
        assert_eq!(batch.duplicates(), 2);
        assert_eq!(batch.conflicts(), [Conflict { kept: item(2, 1).0, dropped: item(2, 9).0 }]);
    }
}

//! The ledger of a store in memory: the identities that it knows.

use std::collections::{BTreeSet, HashMap};

use crate::batch::{Batch, BatchOutcome, Identified};
use crate::event::{EventKey, Identity};
use crate::time::Day;

/// The known identities, and the days that conflicts have made dirty.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    known: HashMap<EventKey, Identity>,
    dirty: BTreeSet<Day>,
}

impl Ledger {
    /// Adds the new identities of `batch` to the ledger, and calls `on_new` with the item of each.
    pub(super) fn record<T: Identified>(&mut self, batch: &Batch<T>, mut on_new: impl FnMut(&T)) -> BatchOutcome {
        let outcome = batch.resolve(|key| self.known.get(key).copied());
        self.dirty.extend(outcome.conflicts.iter().flat_map(|conflict| [conflict.kept.day, conflict.dropped.day]));
        for item in batch.items() {
            let identity = item.identity();
            self.known.entry(identity.key).or_insert_with(|| {
                on_new(item);
                identity
            });
        }
        outcome
    }

    /// The known identity with this key, if any.
    pub(super) fn get(&self, key: &EventKey) -> Option<Identity> {
        self.known.get(key).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.known.values()
    }

    /// Replaces the copy that counts for this identity.
    pub(super) fn replace(&mut self, identity: Identity) {
        self.known.insert(identity.key, identity);
    }

    pub(super) fn mark_dirty(&mut self, day: Day) {
        self.dirty.insert(day);
    }

    pub(super) fn take_dirty(&mut self) -> BTreeSet<Day> {
        std::mem::take(&mut self.dirty)
    }
}

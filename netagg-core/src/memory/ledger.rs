//! Which identities a store has taken.

use std::collections::{BTreeSet, HashMap};

use crate::batch::{Batch, BatchOutcome, Identified};
use crate::event::{EventKey, Identity};
use crate::time::Day;

/// The identities taken so far, and the days that conflicts have made dirty.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    known: HashMap<EventKey, Identity>,
    dirty: BTreeSet<Day>,
}

impl Ledger {
    /// Takes the identities of `batch` that are new, and hands each such item to `take`.
    pub(super) fn take<T: Identified>(&mut self, batch: &Batch<T>, mut take: impl FnMut(&T)) -> BatchOutcome {
        let outcome = batch.judge(|key| self.known.get(key).copied());
        self.dirty.extend(outcome.conflicts.iter().flat_map(|conflict| [conflict.kept.day, conflict.dropped.day]));
        for item in batch.items() {
            let identity = item.identity();
            self.known.entry(identity.key).or_insert_with(|| {
                take(item);
                identity
            });
        }
        outcome
    }

    /// The identity as it was taken, if it was.
    pub(super) fn get(&self, key: &EventKey) -> Option<Identity> {
        self.known.get(key).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.known.values()
    }

    /// Takes over which copy of an identity counts.
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

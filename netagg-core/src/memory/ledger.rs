//! Which identities a store has taken.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::batch::{Batch, BatchOutcome, Conflict, Identified, Identity};
use crate::event::{ContentHash, EventKey};
use crate::time::Day;

/// The identities taken so far, with what tells their contents apart.
#[derive(Debug, Default)]
pub(super) struct Ledger(HashMap<EventKey, (ContentHash, Day)>);

impl Ledger {
    /// Takes the identities of `batch` that are new, and hands each such item to `take`.
    pub(super) fn take<T: Identified>(&mut self, batch: &Batch<T>, mut take: impl FnMut(&T)) -> BatchOutcome {
        let mut outcome = BatchOutcome {
            new: 0,
            duplicates: batch.duplicates(),
            conflicts: batch.conflicts().to_vec(),
            days: Vec::new(),
        };
        for item in batch.items() {
            let identity = item.identity();
            match self.0.entry(identity.key) {
                Entry::Vacant(entry) => {
                    entry.insert((identity.content, identity.day));
                    outcome.new += 1;
                    outcome.days.push(identity.day);
                    take(item);
                }
                Entry::Occupied(entry) => {
                    let (content, day) = *entry.get();
                    if content == identity.content {
                        outcome.duplicates += 1;
                    } else {
                        let kept = Identity { key: identity.key, content, day };
                        outcome.conflicts.push(Conflict { kept, dropped: identity });
                    }
                }
            }
        }
        outcome.days.sort_unstable();
        outcome.days.dedup();
        outcome
    }
}

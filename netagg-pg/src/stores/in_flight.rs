//! The keys of the batches that a process is writing at this moment.
//!
//! A duplicate often comes soon after its original, while the batch of the original is not committed. No statement finds
//! such a key in the ledger, and a `COPY` of the key waits and then fails. But the process that writes both batches knows
//! their keys.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use netagg_core::{EventKey, Identified};
use tokio_util::sync::CancellationToken;

use crate::client::PgError;

/// How long a batch waits for other batches while it holds locks. The batches of one process never wait for each other in a
/// circle. But another process may be part of a circle, and PostgreSQL sees only the waits for its own locks. The batch
/// that gives up lets the other batches continue.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The batches in flight of one store.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    batches: Mutex<Vec<BatchKeys>>,
}

/// The keys of a batch, in order, and whether it has ended.
#[derive(Clone, Debug)]
struct BatchKeys {
    keys: Arc<[EventKey]>,
    has_ended: CancellationToken,
}

impl InFlight {
    /// Adds a batch of `items`, which are in the order of their keys. The batch is in flight until the returned value is
    /// dropped.
    pub(super) fn add<T: Identified>(&self, items: &[T]) -> InFlightBatch<'_> {
        let keys = items.iter().map(|item| item.identity().key).collect();
        let own = BatchKeys { keys, has_ended: CancellationToken::new() };
        let others = {
            let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
            let others = batches.clone();
            batches.push(own.clone());
            others
        };
        let (mut shared, mut owners) = (Vec::new(), Vec::new());
        for other in others {
            let before = shared.len();
            shared.extend(intersection(&own.keys, &other.keys));
            if shared.len() > before {
                owners.push(other.has_ended);
            }
        }
        shared.sort_unstable();
        InFlightBatch { in_flight: self, own, shared, owners }
    }
}

/// A batch in flight.
#[derive(Debug)]
pub(super) struct InFlightBatch<'a> {
    in_flight: &'a InFlight,
    own: BatchKeys,
    /// The keys that were also in other batches when this batch was added.
    shared: Vec<EventKey>,
    /// The ends of the batches that hold these keys.
    owners: Vec<CancellationToken>,
}

impl InFlightBatch<'_> {
    /// Whether `key` was also in a batch that was in flight when this batch was added.
    pub(super) fn shares(&self, key: &EventKey) -> bool {
        self.shared.binary_search(key).is_ok()
    }

    /// Waits for the end of the batches with which this batch shares keys.
    ///
    /// # Errors
    /// [`PgError::Busy`] if the wait takes too long.
    pub(super) async fn wait_for_owners(&self) -> Result<(), PgError> {
        let all = join_all(self.owners.iter().map(CancellationToken::cancelled));
        match tokio::time::timeout(LONGEST_WAIT, all).await {
            Ok(_) => Ok(()),
            Err(_) => Err(PgError::Busy("another batch with the same events is being written".to_owned())),
        }
    }
}

impl Drop for InFlightBatch<'_> {
    fn drop(&mut self) {
        let mut batches = self.in_flight.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.retain(|batch| !Arc::ptr_eq(&batch.keys, &self.own.keys));
        self.own.has_ended.cancel();
    }
}

/// The keys that are in both of two sorted lists.
fn intersection<'a>(one: &'a [EventKey], mut other: &'a [EventKey]) -> impl Iterator<Item = EventKey> + 'a {
    one.iter().copied().filter(move |key| {
        while let Some((first, rest)) = other.split_first() {
            if first >= key {
                return first == key;
            }
            other = rest;
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use netagg_core::{ContentHash, Identity};

    use super::*;

    struct Item(u8);

    impl Identified for Item {
        fn identity(&self) -> Identity {
            let day = "2025-10-20".parse().expect("a day");
            Identity { key: key(self.0), content: ContentHash::from_i64(0), day }
        }
    }

    fn key(number: u8) -> EventKey {
        EventKey::from_bytes([number; 16])
    }

    #[tokio::test]
    async fn a_batch_shares_the_keys_of_earlier_batches_that_are_in_flight() {
        let in_flight = InFlight::default();
        let first = in_flight.add(&[1, 3, 5].map(Item));
        let second = in_flight.add(&[0, 3, 4].map(Item));
        let third = in_flight.add(&[1, 2, 4, 9].map(Item));
        let shared =
            |batch: &InFlightBatch<'_>| (0..=9).filter(|&number| batch.shares(&key(number))).collect::<Vec<_>>();
        assert_eq!([&first, &second, &third].map(shared), [vec![], vec![3], vec![1, 4]]);
        first.wait_for_owners().await.expect("no other batch has its keys");
        let mut waiting = Box::pin(third.wait_for_owners());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        assert!(futures::poll!(&mut waiting).is_pending(), "the second batch has key 4");
        drop(second);
        waiting.await.expect("both batches have ended");
        let fourth = in_flight.add(&[0, 1, 2, 3, 4, 5].map(Item));
        assert_eq!(shared(&fourth), [1, 2, 4], "only the third batch is still in flight");
        drop((third, fourth));
        assert!(in_flight.batches.lock().expect("unpoisoned").is_empty());
    }
}

//! The store of events and totals in the combined mode.

use super::{EventStore, TotalsReader};

/// A store that stores every event once and counts it in the same transaction.
///
/// [`EventStore::store`] adds each new event to the totals of its day. Readers see an event and its share of the totals at
/// the same time. One ledger of identities decides which events are new, for the events and for the totals. So the totals are
/// always the sums over the stored events. A [conflict](crate::Conflict) changes neither events nor totals, and needs no
/// [repair](super::TotalsRepair).
///
/// [`BatchOutcome::days`](crate::BatchOutcome::days) contains the days whose totals changed. The service invalidates their
/// months in the cache.
///
/// An ingestor made by [`Ingestor::combined`](crate::Ingestor::combined) writes to the store. This ingestor replaces an
/// ingestor and an [`Aggregator`](crate::Aggregator), and reads the log once.
pub trait CombinedStore: EventStore + TotalsReader {}

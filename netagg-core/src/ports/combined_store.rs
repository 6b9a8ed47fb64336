//! Where events and totals are kept together.

use super::{EventStore, TotalsReader};

/// Stores every event once and counts it in the same transaction.
///
/// [`EventStore::store`] adds each new event to the totals of its day. Readers see an event and its share of the totals at
/// the same time. One ledger of identities decides for both which events are new, so totals are always the sums over the
/// stored events: a [conflict](crate::Conflict) adds nothing to either, and needs no [repair](super::TotalsRepair).
///
/// [`BatchOutcome::days`](crate::BatchOutcome::days) has the days whose totals changed, for the cache.
///
/// An [`Ingestor::combined`](crate::Ingestor::combined) writes to it. It takes the place of an ingestor and an
/// [`Aggregator`](crate::Aggregator), and reads the log once.
pub trait CombinedStore: EventStore + TotalsReader {}

//! What makes totals follow the events again.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::time::Day;

/// Recomputes totals from the stored events.
///
/// Where one identity comes with two contents, the event store keeps the one it saw first, and so does the aggregate
/// store: not always the same. Both note the days of such a conflict as dirty, in the transaction that meets it.
#[async_trait]
pub trait TotalsRepair: Debug + Send + Sync {
    /// Makes the totals of dirty days those of the stored events, whatever both services do meanwhile; returns the days
    /// whose totals may have changed, in order. A day that cannot be done yet, because the event store has still to
    /// store what the totals contain, stays dirty for a later call.
    ///
    /// Events that are stored and not counted yet stay out of the totals: the aggregator still adds them, and would count them
    /// twice.
    ///
    /// Several may do so at once, of other processes too; what is cut off half-way is done by the next call.
    ///
    /// # Errors
    /// Retryable while the stores cannot be reached; the days done before stay done.
    async fn repair(&self) -> Result<Vec<Day>, Error>;
}

//! The repair of totals from the stored events.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::time::Day;

/// Recomputes the totals of dirty days from the stored events.
///
/// If two copies of one identity have different contents, the event store keeps the copy that it received first. The aggregate
/// store does the same, but its first copy may be the other one. Both stores mark the days of such a conflict as dirty, in the
/// transaction that detects the conflict.
#[async_trait]
pub trait TotalsRepair: Debug + Send + Sync {
    /// Makes the totals of dirty days equal to the sums over the stored events. Both services may write during the repair.
    /// Returns the days whose totals may have changed, in order.
    ///
    /// A day stays dirty for a later call if its totals contain an event that the event store has not stored yet. The repair
    /// leaves out events that are stored but not counted yet. The aggregator still adds them, and would otherwise count them
    /// twice.
    ///
    /// Several repairs may run at the same time, also in other processes. The call may be dropped at any time, and the
    /// next call repairs the remaining days.
    ///
    /// # Errors
    /// A retryable error while the stores are unavailable. Days that are already repaired stay repaired.
    async fn repair(&self) -> Result<Vec<Day>, Error>;
}

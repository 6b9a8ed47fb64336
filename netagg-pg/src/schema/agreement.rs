//! The agreement of all services on the limits of events.

use netagg_core::{Error, EventLimits, RetryPolicy};
use tokio_util::sync::CancellationToken;

use super::settings::EventLimitsError;
use crate::client::Postgres;

impl Postgres {
    /// Waits until the server answers and has its schema, and fails if tables are distributed. Then records `limits` if the
    /// database has none, or checks that they are equal to the recorded limits. Ingestors and aggregators on one database
    /// must use the same limits. Otherwise events and totals differ. So from then on, the stores of this handle check the limits in
    /// each transaction ([`Settings::event_limits`](crate::Settings::event_limits)).
    ///
    /// Returns `None` if `shutdown` comes first. While it waits, it logs one line.
    ///
    /// # Errors
    /// [`EventLimitsError::Differ`] if other limits are recorded; [`EventLimitsError::Changed`] if this handle has agreed on other
    /// limits before; [`EventLimitsError::Store`] with an error that a retry
    /// cannot resolve.
    pub async fn agree_on_limits(
        &self,
        limits: EventLimits,
        shutdown: &CancellationToken,
    ) -> Result<Option<EventLimits>, EventLimitsError> {
        let settings = self.settings();
        let agree = async || -> Result<Result<EventLimits, EventLimitsError>, Error> {
            self.check_distribution().await?;
            match settings.event_limits(limits).await {
                Err(EventLimitsError::Store(error)) => Err(error),
                agreed => Ok(agreed),
            }
        };
        RetryPolicy::default().retry(shutdown, agree).await?.transpose()
    }
}

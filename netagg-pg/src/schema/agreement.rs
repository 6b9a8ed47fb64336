//! The agreement of all services on the limits of events.

use netagg_core::{Error, EventLimits, RetryPolicy};
use tokio_util::sync::CancellationToken;

use super::settings::EventLimitsError;
use crate::client::Postgres;

impl Postgres {
    /// Waits until the server answers and has its schema, refuses tables that are distributed, and then records `limits`,
    /// or checks that they are the recorded ones. Ingestors and aggregators on one database must use the same limits:
    /// otherwise events and totals differ.
    ///
    /// Returns `None` if `shutdown` comes first. One line of log tells that it waits.
    ///
    /// # Errors
    /// [`EventLimitsError::Differ`] if other limits are recorded; [`EventLimitsError::Store`] with an error that no retry can
    /// help.
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

//! One call of a port: its time limit, and the translation of its errors to [`netagg_core::Error`].

use netagg_core::Error;

use super::error::{self, PgError};
use super::pool::Postgres;

impl Postgres {
    /// Checks that the server answers a query.
    ///
    /// # Errors
    /// Retryable, with the reason, while the server does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call(async {
            let mut session = self.session().await?;
            sqlx::raw_sql("SELECT 1").execute(&mut *session).await?;
            session.release();
            Ok(())
        })
        .await
    }

    /// Runs `work` within the [call timeout](crate::PgConfig::call_timeout), and translates its error.
    pub(crate) async fn call<T>(&self, work: impl Future<Output = Result<T, PgError>>) -> Result<T, Error> {
        let limit = self.call_timeout();
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(error::to_core),
            Err(_) => Err(error::to_core(PgError::CallTimedOut { address: self.address().to_string(), limit })),
        }
    }
}

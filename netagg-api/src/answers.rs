//! The usage service as both servers ask it: bounded in time and number, and with errors that give nothing away.

use std::sync::Arc;
use std::time::Duration;

use netagg_core::Error;
use netagg_core::usage::{AggregatesAnswer, DetailPage, InvalidQuery, UsageService};
use tokio::sync::Semaphore;

use crate::limits::ApiLimits;
use crate::parameters::Parameters;

/// Answers questions, no more than so many at a time.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    service: Arc<UsageService>,
    requests: Arc<Semaphore>,
    timeout: Duration,
}

/// Why there is no answer, as far as it is a client's business. The cause is in the log.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The question is wrong.
    Invalid(InvalidQuery),
    /// The same question may be answered later.
    Unavailable,
    /// A bug, most likely.
    Internal,
}

impl Answers {
    pub(crate) fn new(service: Arc<UsageService>, limits: &ApiLimits) -> Self {
        Self { service, requests: Arc::new(Semaphore::new(limits.max_requests)), timeout: limits.request_timeout }
    }

    pub(crate) async fn detail(&self, parameters: Parameters) -> Result<DetailPage, Failure> {
        let request = parameters.into_detail().map_err(Failure::Invalid)?;
        self.bounded(self.service.user_detail(request)).await
    }

    pub(crate) async fn aggregates(&self, parameters: Parameters) -> Result<AggregatesAnswer, Failure> {
        let request = parameters.into_aggregates().map_err(Failure::Invalid)?;
        self.bounded(self.service.aggregates(request)).await
    }

    async fn bounded<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        let in_turn = async {
            let _turn = self.requests.acquire().await;
            answer.await
        };
        match tokio::time::timeout(self.timeout, in_turn).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::InvalidQuery(query))) => Err(Failure::Invalid(query)),
            Ok(Err(error)) if error.is_retryable() => {
                tracing::warn!(%error, "a request cannot be answered now");
                Err(Failure::Unavailable)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a request cannot be answered");
                Err(Failure::Internal)
            }
            Err(_) => {
                tracing::warn!(timeout = ?self.timeout, "a request was not answered in time");
                Err(Failure::Unavailable)
            }
        }
    }
}

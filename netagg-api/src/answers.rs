//! The usage service as both servers ask it: bounded in time and number, and with errors that give nothing away.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Forbidden, Principal, Scope};
use futures::{Stream, TryStreamExt, stream};
use netagg_core::usage::{
    AggregatesAnswer, DetailPage, InvalidQuery, MAX_CHUNK_BYTES, PreparedDetail, PreparedUserAggregates, UsageService,
    UserAggregatesAnswer,
};
use netagg_core::{Error, Event, UserId};
use tokio::sync::{Semaphore, mpsc};

use crate::parameters::Parameters;
use crate::response_cache::ResponseCache;
use crate::server_limits::ApiLimits;
use crate::turns::Turns;

/// What a stream has in memory: a chunk that is being taken, and the next one.
pub(crate) const STREAM_BYTES: usize = 2 * MAX_CHUNK_BYTES as usize;

/// Answers questions, no more than so many at a time.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    service: Arc<UsageService>,
    turns: Turns,
    exports: Arc<Semaphore>,
    turn_timeout: Duration,
    timeout: Duration,
    stall_timeout: Duration,
}

/// Why there is no answer, as far as it is a client's business. The cause is in the log.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The question is wrong.
    Invalid(InvalidQuery),
    /// Whoever asks may not know.
    Forbidden(Forbidden),
    /// Too many ask at the moment.
    Overloaded,
    /// The same question may be answered later.
    Unavailable,
    /// A bug, most likely.
    Internal,
}

impl From<Forbidden> for Failure {
    fn from(forbidden: Forbidden) -> Self {
        Self::Forbidden(forbidden)
    }
}

impl Answers {
    pub(crate) fn new(service: Arc<UsageService>, limits: &ApiLimits) -> Self {
        Self {
            service,
            turns: Turns::new(limits.max_requests),
            exports: Arc::new(Semaphore::new(limits.max_exports)),
            turn_timeout: limits.turn_timeout,
            timeout: limits.request_timeout,
            stall_timeout: limits.idle_timeout,
        }
    }

    pub(crate) async fn detail(&self, who: &Principal, parameters: Parameters) -> Result<DetailPage, Failure> {
        let request = self.detail_request(who, parameters)?;
        self.in_turn(self.service.detail_page(request)).await
    }

    /// All events that are asked for, chunk by chunk. Each is a request of its own to the store, made while the client
    /// takes the one before; a client that takes none for too long, or is gone, is given up. A stream that ends without
    /// an error is whole.
    pub(crate) async fn events(
        &self,
        who: &Principal,
        parameters: Parameters,
    ) -> Result<impl Stream<Item = Result<Vec<Event>, Failure>> + Send + use<>, Failure> {
        let request = self.detail_request(who, parameters)?;
        let place = self.exports.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let mut chunks = Box::pin(self.service.user_events(request));
        let mut next = Ok(self.in_turn(chunks.try_next()).await?);
        let (sender, receiver) = mpsc::channel(1);
        let answers = self.clone();
        tokio::spawn(async move {
            let _place = place;
            // The end is sent too: a channel that just closes has been given up.
            loop {
                let goes_on = matches!(next, Ok(Some(_)));
                if sender.send_timeout(next, answers.stall_timeout).await.is_err() || !goes_on {
                    break;
                }
                next = tokio::select! {
                    // Without a turn: to break off what has begun would be to begin anew.
                    next = answers.bounded(chunks.try_next()) => next,
                    // Nobody waits for it any more, so the store is not to work on it either.
                    () = sender.closed() => break,
                };
            }
        });
        Ok(stream::try_unfold(receiver, async |mut receiver| {
            let chunk = receiver.recv().await.unwrap_or(Err(Failure::Unavailable))?;
            Ok(chunk.map(|chunk| (chunk, receiver)))
        }))
    }

    fn detail_request(&self, who: &Principal, parameters: Parameters) -> Result<PreparedDetail, Failure> {
        self.of_one_person(who, |service| parameters.into_detail(service), PreparedDetail::user_id)
    }

    /// One person's totals tell as much of them as their events do.
    pub(crate) async fn user_aggregates(
        &self,
        who: &Principal,
        parameters: Parameters,
    ) -> Result<UserAggregatesAnswer, Failure> {
        let read = |service: &UsageService| parameters.into_user_aggregates(service);
        let request = self.of_one_person(who, read, PreparedUserAggregates::user_id)?;
        self.in_turn(self.service.user_totals(request)).await
    }

    /// The question that `read` makes, if `who` may ask it of that user.
    fn of_one_person<T>(
        &self,
        who: &Principal,
        read: impl FnOnce(&UsageService) -> Result<T, InvalidQuery>,
        user_id: fn(&T) -> &UserId,
    ) -> Result<T, Failure> {
        who.require(Scope::DetailRead)?;
        let request = read(&self.service).map_err(Failure::Invalid)?;
        who.require_user(user_id(&request))?;
        Ok(request)
    }

    /// Everybody's totals in the form that `write` gives them, with their size in bytes. `cache` has them by `question`.
    pub(crate) async fn aggregates<K, V, E>(
        &self,
        who: &Principal,
        cache: &ResponseCache<K, V>,
        question: K,
        parameters: impl FnOnce() -> Parameters,
        write: impl FnOnce(AggregatesAnswer) -> Result<(V, usize), E>,
    ) -> Result<V, E>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        E: From<Failure> + Clone + Send + Sync + 'static,
    {
        // Asked first: who may not know gets nothing that others were told, and costs them nothing.
        who.require(Scope::AggregatesRead).map_err(Failure::from)?;
        let ask = || async {
            let request = parameters().into_aggregates(&self.service).map_err(Failure::Invalid)?;
            write(self.in_turn(self.service.totals(request)).await?)
        };
        cache.get(question, ask).await
    }

    /// A question is answered soon or not at all.
    async fn in_turn<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        let _turn = self.turns.take(self.turn_timeout).await.ok_or_else(overloaded)?;
        self.bounded(answer).await
    }

    async fn bounded<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
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

/// Too much is asked at the moment.
pub(crate) fn overloaded() -> Failure {
    metrics::counter!("netagg_refused_requests_total", "reason" => "overload").increment(1);
    Failure::Overloaded
}

//! Calls the usage service for both servers: with limits on time and concurrency, and with errors that reveal no internals.

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
use tracing::Instrument;

use crate::lifo_semaphore::LifoSemaphore;
use crate::parameters::Parameters;
use crate::response_cache::ResponseCache;
use crate::server_limits::ApiLimits;

/// The memory of one stream: the chunk that the client is taking, and the next chunk.
pub(crate) const STREAM_BYTES: usize = 2 * MAX_CHUNK_BYTES as usize;

/// Handles requests. [`ApiLimits`] bounds how many run at a time.
#[derive(Clone, Debug)]
pub(crate) struct Handlers {
    service: Arc<UsageService>,
    requests: LifoSemaphore,
    exports: Arc<Semaphore>,
    queue_timeout: Duration,
    timeout: Duration,
    stall_timeout: Duration,
}

/// Why a request failed, in a form that a client may see. The cause is in the log.
#[derive(Clone, Debug)]
pub(crate) enum HandlerError {
    /// The request is invalid.
    Invalid(InvalidQuery),
    /// The caller is not allowed to make this request.
    Forbidden(Forbidden),
    /// A limit is reached: of requests, of exports and streams, or of bytes that clients have not taken yet.
    Overloaded,
    /// The request failed now, but a retry may succeed later.
    Unavailable,
    /// The request failed, most likely because of a bug.
    Internal,
}

impl From<Forbidden> for HandlerError {
    fn from(forbidden: Forbidden) -> Self {
        Self::Forbidden(forbidden)
    }
}

impl Handlers {
    pub(crate) fn new(service: Arc<UsageService>, limits: &ApiLimits) -> Self {
        Self {
            service,
            requests: LifoSemaphore::new(limits.max_requests),
            exports: Arc::new(Semaphore::new(limits.max_exports)),
            queue_timeout: limits.queue_timeout,
            timeout: limits.request_timeout,
            stall_timeout: limits.idle_timeout,
        }
    }

    pub(crate) async fn detail(&self, caller: &Principal, parameters: Parameters) -> Result<DetailPage, HandlerError> {
        let request = self.detail_request(caller, parameters)?;
        self.with_permit(self.service.detail_page(request)).await
    }

    /// Streams all requested events in chunks.
    ///
    /// Each chunk is one read from the store. The read runs while the client takes the previous chunk. The stream is aborted
    /// if the client takes no chunk for too long, or disconnects. A stream that ends without an error is complete.
    pub(crate) async fn events(
        &self,
        caller: &Principal,
        parameters: Parameters,
    ) -> Result<impl Stream<Item = Result<Vec<Event>, HandlerError>> + Send + use<>, HandlerError> {
        let request = self.detail_request(caller, parameters)?;
        let permit = self.exports.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let mut chunks = Box::pin(self.service.user_events(request));
        let mut next = Ok(self.with_permit(chunks.try_next()).await?);
        let (sender, receiver) = mpsc::channel(1);
        let handlers = self.clone();
        let rest = async move {
            let _permit = permit;
            // The end of the stream is sent as a message too: if the channel closes without this message, the stream was
            // aborted.
            loop {
                let has_more = matches!(next, Ok(Some(_)));
                if sender.send_timeout(next, handlers.stall_timeout).await.is_err() || !has_more {
                    break;
                }
                next = tokio::select! {
                    // Needs no permit of `requests`: if overload stopped a started stream, the client would have to start
                    // it again from the beginning.
                    next = handlers.with_timeout(chunks.try_next()) => next,
                    // The client no longer waits, so stop the read from the store.
                    () = sender.closed() => break,
                };
            }
        };
        tokio::spawn(rest.in_current_span());
        Ok(stream::try_unfold(receiver, async |mut receiver| {
            let chunk = receiver.recv().await.unwrap_or(Err(HandlerError::Unavailable))?;
            Ok(chunk.map(|chunk| (chunk, receiver)))
        }))
    }

    fn detail_request(&self, caller: &Principal, parameters: Parameters) -> Result<PreparedDetail, HandlerError> {
        self.user_request(caller, |service| parameters.into_detail(service), PreparedDetail::user_id)
    }

    /// Returns the totals of one user. They need the same scope as the user's events, because they are as private.
    pub(crate) async fn user_aggregates(
        &self,
        caller: &Principal,
        parameters: Parameters,
    ) -> Result<UserAggregatesAnswer, HandlerError> {
        let read = |service: &UsageService| parameters.into_user_aggregates(service);
        let request = self.user_request(caller, read, PreparedUserAggregates::user_id)?;
        self.with_permit(self.service.user_totals(request)).await
    }

    /// Returns the request that `read` makes, if `caller` may read the data of its user.
    fn user_request<T>(
        &self,
        caller: &Principal,
        read: impl FnOnce(&UsageService) -> Result<T, InvalidQuery>,
        user_id: fn(&T) -> &UserId,
    ) -> Result<T, HandlerError> {
        caller.require(Scope::DetailRead)?;
        let request = read(&self.service).map_err(HandlerError::Invalid)?;
        caller.require_user(user_id(&request))?;
        Ok(request)
    }

    /// Returns the totals of all users, as `encode` encodes them. `encode` also returns their size in bytes. `cache` keeps the
    /// encoded totals under `key`.
    pub(crate) async fn aggregates<K, V, E>(
        &self,
        caller: &Principal,
        cache: &ResponseCache<K, V>,
        key: K,
        parameters: impl FnOnce() -> Parameters,
        encode: impl FnOnce(AggregatesAnswer) -> Result<(V, usize), E>,
    ) -> Result<V, E>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        E: From<HandlerError> + Clone + Send + Sync + 'static,
    {
        // The scope is checked before the cache lookup: a caller without it gets no cached response and causes no query.
        caller.require(Scope::AggregatesRead).map_err(HandlerError::from)?;
        let compute = || async {
            let request = parameters().into_aggregates(&self.service).map_err(HandlerError::Invalid)?;
            encode(self.with_permit(self.service.totals(request)).await?)
        };
        cache.get(key, compute).await
    }

    /// Runs `answer` with a permit and with the time limit. If no permit is free within the queue timeout, the request is
    /// rejected as overloaded.
    async fn with_permit<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, HandlerError> {
        let _permit = self.requests.take(self.queue_timeout).await.ok_or_else(overloaded)?;
        self.with_timeout(answer).await
    }

    /// Runs `answer` with the time limit, and logs why it failed.
    async fn with_timeout<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, HandlerError> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_retryable() => {
                tracing::warn!(%error, "a request cannot be answered now");
                Err(HandlerError::Unavailable)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a request cannot be answered");
                Err(HandlerError::Internal)
            }
            Err(_) => {
                tracing::warn!(timeout = ?self.timeout, "a request was not answered in time");
                Err(HandlerError::Unavailable)
            }
        }
    }
}

/// Counts a rejected request and returns [`HandlerError::Overloaded`].
pub(crate) fn overloaded() -> HandlerError {
    metrics::counter!("netagg_requests_rejected_total", "reason" => "overload").increment(1);
    HandlerError::Overloaded
}

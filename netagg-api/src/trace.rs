//! A span for each request, whose trace continues the trace of the client.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use futures::future::BoxFuture;
use netagg_core::TraceContext;
use netagg_core::ports::TracePropagator;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

/// The response header with the id of the trace.
pub(crate) const TRACE_ID: HeaderName = HeaderName::from_static("trace-id");

tokio::task_local! {
    /// The id of the trace of the request that this task handles.
    static CURRENT: Option<Arc<str>>;
}

/// The id of the trace of the current request. `None` outside of a request, and if no tracing system sees the request.
pub(crate) fn current_trace_id() -> Option<Arc<str>> {
    CURRENT.try_with(Clone::clone).ok().flatten()
}

/// Handles each request in a span, and adds the id of its trace to the response. `begin` makes the span of a request, with an
/// empty field `trace_id`; `end` records the response in the span.
pub(crate) struct TraceLayer<A, B> {
    propagator: Option<Arc<dyn TracePropagator>>,
    begin: fn(&Request<A>) -> Span,
    end: fn(&Span, &Response<B>),
}

impl<A, B> TraceLayer<A, B> {
    pub(crate) fn new(
        propagator: Option<Arc<dyn TracePropagator>>,
        begin: fn(&Request<A>) -> Span,
        end: fn(&Span, &Response<B>),
    ) -> Self {
        Self { propagator, begin, end }
    }
}

// Not derived: the derive would require `A: Clone` and `B: Clone`.
impl<A, B> Clone for TraceLayer<A, B> {
    fn clone(&self) -> Self {
        Self { propagator: self.propagator.clone(), begin: self.begin, end: self.end }
    }
}

impl<A, B> fmt::Debug for TraceLayer<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceLayer").field("propagator", &self.propagator).finish_non_exhaustive()
    }
}

impl<S, A, B> Layer<S> for TraceLayer<A, B> {
    type Service = Traced<S, A, B>;

    fn layer(&self, inner: S) -> Self::Service {
        Traced { inner, trace: self.clone() }
    }
}

/// A service behind a [`TraceLayer`].
#[derive(Debug)]
pub(crate) struct Traced<S, A, B> {
    inner: S,
    trace: TraceLayer<A, B>,
}

impl<S: Clone, A, B> Clone for Traced<S, A, B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), trace: self.trace.clone() }
    }
}

impl<S, A, B> Service<Request<A>> for Traced<S, A, B>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    A: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let span = (self.trace.begin)(&request);
        // Without a tracing system, a request costs nothing more.
        if span.is_disabled() {
            return Box::pin(self.inner.call(request));
        }
        // Calls the service that `poll_ready` found ready, and leaves a clone in its place.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let end = self.trace.end;
        let trace_id = self.trace.propagator.as_ref().and_then(|propagator| {
            if let Some(parent) = trace_context(request.headers()) {
                propagator.set_parent(&span, &parent);
            }
            Some(Arc::<str>::from(propagator.context(&span)?.trace_id()))
        });
        if let Some(trace_id) = &trace_id {
            span.record("trace_id", &**trace_id);
        }
        let header = trace_id.as_deref().and_then(|trace_id| HeaderValue::try_from(trace_id).ok());
        let request_span = span.clone();
        let handling = async move {
            let mut response = inner.call(request).await?;
            end(&request_span, &response);
            if let Some(header) = header {
                response.headers_mut().insert(TRACE_ID, header);
            }
            Ok(response)
        };
        Box::pin(CURRENT.scope(trace_id, handling).instrument(span))
    }
}

/// The trace context that the client has sent, if it is valid.
fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let context: TraceContext = text(TraceContext::TRACEPARENT)?.parse().ok()?;
    Some(context.with_state(text(TraceContext::TRACESTATE).unwrap_or_default()))
}

//! The protection as a tower layer for HTTP and gRPC.

use std::fmt;
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use futures::future::BoxFuture;
use tower::{Layer, Service};

use super::protection::{Caller, Protection};
use super::rejection::Rejection;

/// Passes accepted requests to a service, with their [`Principal`](crate::auth::Principal) as an extension. It responds to
/// rejected requests itself, with the response that `reject` makes.
pub(crate) struct GuardLayer<B> {
    protection: Protection,
    reject: fn(&Rejection) -> Response<B>,
}

impl<B> GuardLayer<B> {
    pub(crate) fn new(protection: Protection, reject: fn(&Rejection) -> Response<B>) -> Self {
        Self { protection, reject }
    }
}

// Not derived: the derive would require `B: Clone`.
impl<B> Clone for GuardLayer<B> {
    fn clone(&self) -> Self {
        Self { protection: self.protection.clone(), reject: self.reject }
    }
}

impl<B> fmt::Debug for GuardLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer").field("protection", &self.protection).finish_non_exhaustive()
    }
}

impl<S, B> Layer<S> for GuardLayer<B> {
    type Service = Guarded<S, B>;

    fn layer(&self, inner: S) -> Guarded<S, B> {
        Guarded { inner, guard: self.clone() }
    }
}

/// A service behind a [`GuardLayer`].
#[derive(Debug)]
pub(crate) struct Guarded<S, B> {
    inner: S,
    guard: GuardLayer<B>,
}

impl<S: Clone, B> Clone for Guarded<S, B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), guard: self.guard.clone() }
    }
}

impl<S, A, B> Service<Request<A>> for Guarded<S, B>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    A: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        // Calls the service that `poll_ready` found ready, and leaves a clone in its place.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let guard = self.guard.clone();
        Box::pin(async move {
            match guard.protection.admit(request.headers(), request.extensions()) {
                Ok(Caller { principal, quota }) => {
                    request.extensions_mut().insert(principal);
                    let mut response = inner.call(request).await?;
                    if let Some(quota) = quota {
                        quota.write_headers(response.headers_mut());
                    }
                    Ok(response)
                }
                Err(rejection) => {
                    let mut response = (guard.reject)(&rejection);
                    rejection.write_headers(response.headers_mut());
                    Ok(response)
                }
            }
        })
    }
}

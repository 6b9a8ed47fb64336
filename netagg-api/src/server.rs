//! The HTTP and gRPC servers, and the parts of them that an application can mount.

use std::sync::Arc;

use netagg_core::ports::TracePropagator;
use netagg_core::usage::UsageService;

use crate::auth::Protection;
use crate::server_limits::ApiLimits;

/// The API over one [`UsageService`]. It runs its own servers, or gives routes and a gRPC service to the servers of an
/// application.
///
/// | protocol | on a listener | in your server |
/// |---|---|---|
/// | HTTP | [`serve_http`](Self::serve_http) | [`router`](Self::router), [`health_router`](Self::health_router) |
/// | gRPC | [`serve_grpc`](Self::serve_grpc) | [`grpc_service`](Self::grpc_service) |
///
/// Without further settings every caller may make every request, within [`ApiLimits::default`].
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) service: Arc<UsageService>,
    pub(crate) protection: Protection,
    pub(crate) limits: ApiLimits,
    pub(crate) base_path: Option<Arc<str>>,
    pub(crate) propagator: Option<Arc<dyn TracePropagator>>,
    #[cfg(feature = "overview-page")]
    pub(crate) has_overview_page: bool,
}

impl Server {
    /// The API over `service`.
    pub fn new(service: Arc<UsageService>) -> Self {
        Self {
            service,
            protection: Protection::default(),
            limits: ApiLimits::default(),
            base_path: None,
            propagator: None,
            #[cfg(feature = "overview-page")]
            has_overview_page: false,
        }
    }

    /// Accepts only the callers that `protection` accepts. The application has to run [`Protection::refresh_loop`].
    #[must_use]
    pub fn with_protection(self, protection: Protection) -> Self {
        Self { protection, ..self }
    }

    /// Applies `limits`. The limits of connections apply only to servers on a listener.
    #[must_use]
    pub fn with_limits(self, limits: ApiLimits) -> Self {
        Self { limits, ..self }
    }

    /// Continues the traces of clients: the span of a request gets the `traceparent` of the request as its parent. The response
    /// has the id of the trace in the header `trace-id`, and a problem has it in the member `trace_id`.
    #[must_use]
    pub fn with_trace_propagator(self, propagator: Arc<dyn TracePropagator>) -> Self {
        Self { propagator: Some(propagator), ..self }
    }

    /// Serves a page for browsers at `/`, below the [base path](Self::with_base_path): charts and tables of the totals, and the
    /// timeline of a user. If callers need credentials, the page asks its viewer for a key.
    #[cfg(feature = "overview-page")]
    #[must_use]
    pub fn with_overview_page(self) -> Self {
        Self { has_overview_page: true, ..self }
    }

    /// Sets the path of the API, such as `/usage`: the path at which an application nests [`router`](Self::router). The OpenAPI
    /// description and the page for browsers need it.
    #[must_use]
    pub fn with_base_path(self, path: &str) -> Self {
        Self { base_path: Some(path.into()), ..self }
    }
}

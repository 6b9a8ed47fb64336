//! Both servers, and the parts of them that an application can mount.

use std::sync::Arc;

use netagg_core::usage::UsageService;

use crate::auth::Protection;
use crate::server_limits::ApiLimits;

/// The API over one [`UsageService`]: as servers of its own, or as routes and a gRPC service for the servers of an
/// application.
///
/// | to answer | on a listener | in your server |
/// |---|---|---|
/// | HTTP | [`serve_http`](Self::serve_http) | [`router`](Self::router), [`health_router`](Self::health_router) |
/// | gRPC | [`serve_grpc`](Self::serve_grpc) | [`grpc_service`](Self::grpc_service) |
///
/// Without further settings everybody may ask everything, within [`ApiLimits::default`].
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) service: Arc<UsageService>,
    pub(crate) protection: Protection,
    pub(crate) limits: ApiLimits,
    pub(crate) base_path: Option<Arc<str>>,
}

impl Server {
    /// The API that answers from `service`.
    pub fn new(service: Arc<UsageService>) -> Self {
        Self { service, protection: Protection::default(), limits: ApiLimits::default(), base_path: None }
    }

    /// Lets in the callers that `protection` lets in. The application runs [`Protection::refresh_loop`].
    #[must_use]
    pub fn with_protection(self, protection: Protection) -> Self {
        Self { protection, ..self }
    }

    /// Takes no more than `limits` allow. The limits of connections hold for servers on a listener alone.
    #[must_use]
    pub fn with_limits(self, limits: ApiLimits) -> Self {
        Self { limits, ..self }
    }

    /// Says in the OpenAPI description that the API lies below `path`, such as `/usage`: the path at which an application
    /// nests [`router`](Self::router).
    #[must_use]
    pub fn with_base_path(self, path: &str) -> Self {
        Self { base_path: Some(path.into()), ..self }
    }
}

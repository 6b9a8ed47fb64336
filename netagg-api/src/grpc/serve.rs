//! The gRPC server, with health and reflection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use netagg_core::Error;
use netagg_core::usage::UsageService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
#[cfg(feature = "compression")]
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::server::NamedService;
use tonic::service::LayerExt;
use tonic::transport::server::Connected;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;
use tower::util::MapResponseLayer;

use super::generated::usage_service_server::UsageServiceServer;
use super::{Usage, trace};
use crate::auth::{GuardLayer, Protection, Rejection};
use crate::client::{Client, Transport};
use crate::connections::{Connection, Connections};
use crate::handlers::Handlers;
use crate::health;
use crate::response_budget::move_permit_to_body;
use crate::response_cache::ResponseCache;
use crate::server::Server;
use crate::trace::TraceLayer;

/// The maximum number of requests at a time on one connection. Further requests wait in the client.
const MAX_STREAMS: u32 = 128;

/// How often the health service checks whether requests can be answered.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The first words of the messages of tonic and prost about a request that cannot be decoded.
const UNDECODABLE: [&str; 4] = [
    "failed to decode Protobuf message",
    "Error decompressing",
    "Missing request message",
    "Unexpected EOF decoding stream",
];

/// The name of the service in health requests. The empty name means the whole server.
const USAGE: &str = <UsageServiceServer<Usage> as NamedService>::NAME;

/// Configures a service to accept messages of up to `$limits.max_body_bytes`, both as sent and after decompression.
macro_rules! accepting {
    ($service:expr, $limits:expr) => {{
        let service = $service.max_decoding_message_size($limits.max_body_bytes);
        #[cfg(feature = "compression")]
        let service = service.accept_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Zstd);
        service
    }};
}

impl Server {
    /// `telecom.v1.UsageService` as a service for a tonic server of the application:
    /// `tonic::transport::Server::builder().add_service(server.grpc_service())`.
    ///
    /// Of the [`ApiLimits`](crate::ApiLimits), the limits of requests apply. The application provides health and reflection. With
    /// a rate limit its server has to provide the client address of requests: see
    /// [`Protection::with_rate_limit`](crate::Protection::with_rate_limit).
    pub fn grpc_service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static {
        let handlers = Handlers::new(self.service.clone(), &self.limits);
        let usage = accepting!(UsageServiceServer::new(Usage { handlers, totals: ResponseCache::new() }), self.limits);
        let guarded = GuardLayer::new(self.protection.clone(), reject).named_layer(usage);
        let corrected = MapResponseLayer::new(correct_status_code).named_layer(guarded);
        TraceLayer::new(self.propagator.clone(), trace::begin, trace::end).named_layer(corrected)
    }

    /// Serves gRPC on `listener` until `shutdown`: `telecom.v1.UsageService`, `grpc.health.v1.Health` and server reflection.
    ///
    /// At the shutdown it reports `NOT_SERVING`, and running requests may end within
    /// [`ApiLimits::stop_timeout`](crate::ApiLimits::stop_timeout). Then it returns, and no connection stays open.
    ///
    /// For `telecom.v1.UsageService`, health reports whether requests can be answered now, so that load balancers use another
    /// server while they cannot. For the server as a whole (the empty name), health reports that it is alive.
    ///
    /// The drop of the future closes every connection.
    ///
    /// # Errors
    /// Only if a service cannot be set up, which is a bug.
    pub async fn serve_grpc(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        let failed = |error| Error::internal("grpc", error);
        let usage = self.grpc_service();
        let Self { service, protection, limits, .. } = self;
        let connections = Connections::new(&limits).encrypted_by(&protection, Transport::Grpc);
        let (health, health_service) = tonic_health::server::health_reporter();
        let watching = shutdown.run_until_cancelled(watch(service, protection, health.clone()));
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(crate::proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // The messages in the details of errors.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let serving = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(limits.idle_timeout))
            // Ends the wait for a request message that never arrives. The handlers have their own time limit.
            .timeout(limits.idle_timeout)
            .layer(MapResponseLayer::new(correct_status_code))
            .layer(MapResponseLayer::new(move_permit_to_body))
            .add_service(usage)
            .add_service(accepting!(health_service, limits))
            .add_service(accepting!(reflection().build_v1().map_err(failed)?, limits))
            .add_service(accepting!(reflection().build_v1alpha().map_err(failed)?, limits))
            .serve_with_incoming_shutdown(connections.accept(listener).map(Ok::<_, Error>), async {
                shutdown.cancelled().await;
                stop_serving(health).await;
            });
        let serving = async { tokio::join!(serving, watching).0 };
        connections.run(serving, &shutdown).await.map_err(|error| Error::internal("grpc", error))
    }
}

impl Connected for Connection {
    type ConnectInfo = Client;

    fn connect_info(&self) -> Client {
        self.client()
    }
}

/// The response to a rejected request.
///
/// Health and reflection have no guard, because they reveal no data of users.
fn reject(rejection: &Rejection) -> Response<Body> {
    Status::from(rejection).into_http()
}

/// Checks periodically whether requests can be answered, and reports the result to the health service.
async fn watch(service: Arc<UsageService>, protection: Protection, health: HealthReporter) {
    let mut reported = None;
    loop {
        let can_answer = health::can_answer(&service, &protection).await;
        let status = if can_answer { ServingStatus::Serving } else { ServingStatus::NotServing };
        // Watchers get only changes.
        if reported.replace(status) != Some(status) {
            health.set_service_status(USAGE, status).await;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Reports `NOT_SERVING` to the watchers, and ends their streams, which would otherwise stay open.
async fn stop_serving(mut health: HealthReporter) {
    for service in ["", USAGE] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
}

/// Corrects the status code of a request that cannot be decoded. tonic returns `OUT_OF_RANGE` for a message beyond the size
/// limit, but other gRPC servers return `RESOURCE_EXHAUSTED`. tonic returns `INTERNAL` for bytes that are not a valid message,
/// but this is an error of the client: `INVALID_ARGUMENT`.
fn correct_status_code<B>(mut response: Response<B>) -> Response<B> {
    let status = Status::from_header_map(response.headers());
    let code = status.as_ref().and_then(|status| match (status.code(), status.message()) {
        (Code::OutOfRange, text) if text.starts_with("Error, decoded message length too large") => {
            Some(Code::ResourceExhausted)
        }
        (Code::Internal, text) if UNDECODABLE.iter().any(|begin| text.starts_with(begin)) => {
            Some(Code::InvalidArgument)
        }
        _ => None,
    });
    if let Some(code) = code {
        response.headers_mut().insert(Status::GRPC_STATUS, HeaderValue::from(code as i32));
    }
    response
}

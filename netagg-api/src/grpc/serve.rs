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

use super::Usage;
use super::generated::usage_service_server::UsageServiceServer;
use crate::answers::Answers;
use crate::auth::{GuardLayer, Protection, Refusal};
use crate::client::{Client, Transport};
use crate::connections::{Connection, Connections};
use crate::health;
use crate::response_cache::ResponseCache;
use crate::room::in_place;
use crate::server::Server;

/// The most requests at a time on one connection; further ones wait in the client.
const MAX_STREAMS: u32 = 128;

/// How often health looks whether questions can be answered.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How tonic and prost begin what they say of a request that cannot be read.
const UNREADABLE: [&str; 4] = [
    "failed to decode Protobuf message",
    "Error decompressing",
    "Missing request message",
    "Unexpected EOF decoding stream",
];

/// The name that health is asked by, beside the empty one, which is the whole server's.
const USAGE: &str = <UsageServiceServer<Usage> as NamedService>::NAME;

/// The settings of a service that takes messages of up to `$limits.max_body_bytes`, as sent and after decompression.
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
    /// Of the [`ApiLimits`](crate::ApiLimits), the limits of requests hold here. Health and reflection are the application's; with a rate
    /// limit its server has to tell where requests come from: see [`Protection::with_rate_limit`](crate::Protection::with_rate_limit).
    pub fn grpc_service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static {
        let answers = Answers::new(self.service.clone(), &self.limits);
        let usage = accepting!(UsageServiceServer::new(Usage { answers, totals: ResponseCache::new() }), self.limits);
        let guarded = GuardLayer::new(self.protection.clone(), refuse).named_layer(usage);
        MapResponseLayer::new(blamed_on_the_client).named_layer(guarded)
    }

    /// Answers gRPC on `listener` until `shutdown`: `telecom.v1.UsageService`, `grpc.health.v1.Health` and server
    /// reflection. Then it reports `NOT_SERVING`, lets requests that have begun end within [`ApiLimits::stop_timeout`](crate::ApiLimits::stop_timeout)
    /// and returns; no connection is left open.
    ///
    /// Health tells of `telecom.v1.UsageService` whether questions can be answered, so that balancers go elsewhere while
    /// they cannot; of the server as a whole (the empty name) that it is alive.
    ///
    /// Dropping the future cuts every connection.
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
            // A message that never comes is not waited for; the answer has a limit of its own.
            .timeout(limits.idle_timeout)
            .layer(MapResponseLayer::new(blamed_on_the_client))
            .layer(MapResponseLayer::new(in_place))
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

/// Health and reflection are open to everybody: neither tells of any user.
fn refuse(refusal: &Refusal) -> Response<Body> {
    Status::from(refusal).into_http()
}

/// Has health tell whether questions can be answered, found out by asking now and then.
async fn watch(service: Arc<UsageService>, protection: Protection, health: HealthReporter) {
    let mut told = None;
    loop {
        let can_answer = health::can_answer(&service, &protection).await;
        let status = if can_answer { ServingStatus::Serving } else { ServingStatus::NotServing };
        // Whoever watches is told of changes alone.
        if told.replace(status) != Some(status) {
            health.set_service_status(USAGE, status).await;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Tells the watchers, and lets go of them: their streams would never end by themselves.
async fn stop_serving(mut health: HealthReporter) {
    for service in ["", USAGE] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
}

/// Gives a request that cannot be read the code of a client's mistake: tonic says `OUT_OF_RANGE` of a message beyond the
/// limit, which is `RESOURCE_EXHAUSTED` everywhere else, and `INTERNAL` of bytes that are no such message.
fn blamed_on_the_client<B>(mut response: Response<B>) -> Response<B> {
    let found = Status::from_header_map(response.headers());
    let code = found.as_ref().and_then(|status| match (status.code(), status.message()) {
        (Code::OutOfRange, text) if text.starts_with("Error, decoded message length too large") => {
            Some(Code::ResourceExhausted)
        }
        (Code::Internal, text) if UNREADABLE.iter().any(|begin| text.starts_with(begin)) => Some(Code::InvalidArgument),
        _ => None,
    });
    if let Some(code) = code {
        response.headers_mut().insert(Status::GRPC_STATUS, HeaderValue::from(code as i32));
    }
    response
}

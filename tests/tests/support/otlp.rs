//! A receiver of traces in this process, over gRPC and HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use netagg_testkit::eventually;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::codegen::tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span as the receiver got it.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedSpan {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent_id: String,
    /// The trace ids of the links.
    pub(crate) links: Vec<String>,
    pub(crate) attributes: HashMap<String, serde_json::Value>,
    pub(crate) is_error: bool,
}

/// A running receiver.
#[derive(Clone, Debug)]
pub(crate) struct OtlpReceiver {
    spans: Arc<Mutex<Vec<ReceivedSpan>>>,
    /// The headers of the last export over HTTP.
    headers: Arc<Mutex<HeaderMap>>,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl OtlpReceiver {
    /// Starts a receiver that runs until the end of the test.
    pub(crate) async fn start() -> Self {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (grpc, http) = (bind().await, bind().await);
        let address = |listener: &TcpListener| listener.local_addr().expect("an address");
        let receiver =
            Self { spans: Arc::default(), headers: Arc::default(), grpc: address(&grpc), http: address(&http) };
        let service = TraceServiceServer::new(receiver.clone());
        let serving = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(grpc)));
        let received = receiver.clone();
        let post = post(async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            *received.headers.lock().expect("no panic") = headers;
            match ExportTraceServiceRequest::decode(body) {
                Ok(request) => {
                    received.receive(request);
                    StatusCode::OK
                }
                Err(_) => StatusCode::BAD_REQUEST,
            }
        });
        let app = Router::new().route("/v1/traces", post);
        tokio::spawn(async { axum::serve(http, app).await });
        receiver
    }

    /// The address for gRPC, as a URL.
    pub(crate) fn grpc(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The address for HTTP, as a URL without the path.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The headers of the last export over HTTP.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.headers.lock().expect("no panic").clone()
    }

    /// The spans that were received.
    pub(crate) fn spans(&self) -> Vec<ReceivedSpan> {
        self.spans.lock().expect("no panic").clone()
    }

    /// Waits until a span matches.
    pub(crate) async fn span(
        &self,
        patience: Duration,
        what: &str,
        matches: impl Fn(&ReceivedSpan) -> bool,
    ) -> ReceivedSpan {
        eventually(patience, what, async || {
            let spans = self.spans();
            spans.iter().find(|span| matches(span)).cloned().ok_or_else(|| {
                let names: Vec<_> = spans.iter().map(|span| format!("{}: {}", span.service, span.name)).collect();
                names.join("\n")
            })
        })
        .await
    }

    /// The names of the spans below `parent`, in any depth.
    pub(crate) fn names_below(&self, parent: &ReceivedSpan) -> Vec<String> {
        let spans = self.spans();
        let mut below = vec![&parent.span_id];
        let mut names = Vec::new();
        while let Some(id) = below.pop() {
            for span in spans.iter().filter(|span| span.parent_id == *id && span.trace_id == parent.trace_id) {
                names.push(span.name.clone());
                below.push(&span.span_id);
            }
        }
        names.sort();
        names
    }

    fn receive(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.spans.lock().expect("no panic");
        for resource in request.resource_spans {
            let attributes = attributes(&resource.resource.expect("a resource").attributes);
            let service = attributes["service.name"].as_str().expect("a text").to_owned();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(ReceivedSpan {
                    service: service.clone(),
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent_id: hex(&span.parent_span_id),
                    links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
                    attributes: self::attributes(&span.attributes),
                    is_error: span.status.is_some_and(|status| status.code == 2),
                    name: span.name,
                });
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for OtlpReceiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.receive(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(attributes: &[KeyValue]) -> HashMap<String, serde_json::Value> {
    let json = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::IntValue(number)) => (*number).into(),
        other => format!("{other:?}").into(),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), json(&attribute.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The span of a gRPC request, with the attributes that OpenTelemetry defines for RPC.

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tracing::{Span, field};

/// The span of `request`, named `service/method`.
pub(super) fn begin(request: &Request<Body>) -> Span {
    let method = request.uri().path().trim_start_matches('/');
    tracing::info_span!(
        "request",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = field::Empty,
        trace_id = field::Empty,
    )
}

/// Records the status of the response, as far as its head has one. A stream that fails later ends with the status in its
/// trailers.
pub(super) fn end(span: &Span, response: &Response<Body>) {
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    span.record("rpc.response.status_code", name(code));
    // The codes that OpenTelemetry counts as errors of the server.
    if matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    ) {
        span.record("otel.status_code", "ERROR");
    }
}

/// The name of `code` in the standard of gRPC.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

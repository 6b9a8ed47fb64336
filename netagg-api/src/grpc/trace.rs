//! The span of a gRPC request, with the attributes that OpenTelemetry defines for RPC.

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tracing::{Span, field};

/// The methods of `telecom.v1.UsageService`.
const METHODS: [&str; 4] = [
    "telecom.v1.UsageService/GetUserDetail",
    "telecom.v1.UsageService/StreamUserDetail",
    "telecom.v1.UsageService/GetGlobalAgg",
    "telecom.v1.UsageService/GetUserAgg",
];

/// The span of `request`, named `service/method`.
pub(super) fn begin(request: &Request<Body>) -> Span {
    let method = method(request.uri().path());
    tracing::info_span!(
        "request",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = field::Empty,
        error.r#type = field::Empty,
        trace_id = field::Empty,
    )
}

/// The name of the method at `path`. A client may send any text as the path.
fn method(path: &str) -> &'static str {
    METHODS.into_iter().find(|method| path.strip_prefix('/') == Some(method)).unwrap_or("_OTHER")
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
        span.record("error.type", name(code));
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

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn each_method_of_the_service_has_its_name_in_traces() {
        let set = FileDescriptorSet::decode(crate::proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let service = set.file.iter().flat_map(|file| &file.service).next().expect("a service");
        let names = service.method.iter().map(|method| format!("telecom.v1.UsageService/{}", method.name()));
        assert_eq!(names.collect::<std::collections::BTreeSet<_>>(), METHODS.map(str::to_owned).into());
        for name in METHODS {
            assert_eq!(method(&format!("/{name}")), name);
        }
        for path in ["/telecom.v1.UsageService/100000001", "/telecom.v1.UsageService", "//", ""] {
            assert_eq!(method(path), "_OTHER", "the path is not in the trace: {path}");
        }
    }
}

//! The metrics of this crate: their meanings, units and recommended buckets.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use netagg_core::usage::UsageService;

/// Recommended buckets of the histograms `netagg_http_request_seconds` and `netagg_grpc_request_seconds`: from an answer out
/// of the cache to one that times out.
pub const REQUEST_SECONDS_BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Describes the metrics of this crate to the recorder in scope: their units and meanings. Installs nothing.
pub fn describe_metrics() {
    describe_counter!(
        "netagg_refused_requests_total",
        Unit::Count,
        "Requests to the API that were not looked at, by reason."
    );
    describe_counter!(
        "netagg_tls_handshake_failures_total",
        Unit::Count,
        "Connections to the API that came to no agreement on TLS."
    );
    describe_gauge!(
        "netagg_tls_certificate_expiry_timestamp_seconds",
        Unit::Seconds,
        "When the API's certificate ends, in Unix time."
    );
    describe_histogram!(
        "netagg_http_request_seconds",
        Unit::Seconds,
        "Time to answer an HTTP request, by route, method and status."
    );
    describe_histogram!(
        "netagg_grpc_request_seconds",
        Unit::Seconds,
        "Time to answer a gRPC request of UsageService, by method and code."
    );
}

/// Registers the counters of the API at 0, those of [`UsageService`] included: a counter that first shows when it moves hides
/// its first move. Call it once, after the recorder is installed.
pub fn register_metrics() {
    UsageService::register_metrics();
    counter!("netagg_cache_lookups_total", "outcome" => "kept").absolute(0);
    for reason in ["no_credentials", "bad_credentials", "rate_limit", "overload", "unavailable"] {
        counter!("netagg_refused_requests_total", "reason" => reason).absolute(0);
    }
    counter!("netagg_tls_handshake_failures_total").absolute(0);
}

//! The metrics of this crate: their meanings, units and recommended buckets.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use netagg_core::usage::UsageService;

/// Recommended buckets of the histograms `netagg_http_request_duration_seconds` and `netagg_grpc_request_duration_seconds`.
/// They range from a response from the cache to a request that times out.
pub const REQUEST_SECONDS_BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Describes the metrics of this crate, with their units and meanings, to the recorder in scope. Installs no recorder.
pub fn describe_metrics() {
    describe_counter!(
        "netagg_requests_rejected_total",
        Unit::Count,
        "Requests that the API rejected before it handled them, by reason."
    );
    describe_counter!(
        "netagg_tls_handshake_failures_total",
        Unit::Count,
        "Connections to the API whose TLS handshake failed."
    );
    describe_gauge!(
        "netagg_tls_certificate_expiry_timestamp_seconds",
        Unit::Seconds,
        "When the API's certificate expires, in Unix time."
    );
    describe_histogram!(
        "netagg_http_request_duration_seconds",
        Unit::Seconds,
        "Duration of HTTP requests, by route, method and status."
    );
    describe_histogram!(
        "netagg_grpc_request_duration_seconds",
        Unit::Seconds,
        "Duration of gRPC requests to UsageService, by method and code."
    );
}

/// Registers the counters of the API and of [`UsageService`] with the value 0. Otherwise a counter would appear with its first
/// increment, and a rate would miss this increment. Call it once, after the recorder is installed.
pub fn register_metrics() {
    UsageService::register_metrics();
    counter!("netagg_cache_lookups_total", "outcome" => "local_hit").absolute(0);
    for reason in ["no_credentials", "bad_credentials", "rate_limit", "overload", "unavailable"] {
        counter!("netagg_requests_rejected_total", "reason" => reason).absolute(0);
    }
    counter!("netagg_tls_handshake_failures_total").absolute(0);
}

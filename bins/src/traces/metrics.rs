//! The metrics of tracing.

use metrics::{Counter, Unit, counter, describe_counter};

/// The counter of dropped spans.
pub(super) fn dropped(reason: &'static str) -> Counter {
    counter!("netagg_trace_spans_dropped_total", "reason" => reason)
}

/// Describes the metrics of tracing.
pub(crate) fn describe_metrics() {
    describe_counter!(
        "netagg_trace_spans_exported_total",
        Unit::Count,
        "Spans that the receiver of traces has accepted."
    );
    describe_counter!(
        "netagg_trace_spans_dropped_total",
        Unit::Count,
        "Spans that were dropped, because the queue was full or an export failed, by reason."
    );
}

/// Registers the metrics of tracing at 0.
pub(crate) fn register_metrics() {
    counter!("netagg_trace_spans_exported_total").absolute(0);
    for reason in ["queue_full", "export_failed"] {
        dropped(reason).absolute(0);
    }
}

//! The metrics of this crate: their meanings, units and recommended buckets.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Recommended buckets of the histogram `netagg_batch_records`. Batches hold up to
/// [`ConsumerConfig::batch_size`](crate::ConsumerConfig::batch_size) records, 5,000 by default.
pub const BATCH_RECORDS_BUCKETS: &[f64] =
    &[1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0];

/// Recommended buckets of the histogram `netagg_batch_duration_seconds`: from the time of a batch of one record to the time of a
/// batch that waits for an unavailable database.
pub const BATCH_SECONDS_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Describes the units and meanings of this crate's metrics to the recorder in scope. Does not install a recorder.
///
/// [`Ingestor`](crate::Ingestor::register_metrics) and [`Aggregator`](crate::Aggregator::register_metrics) register their
/// counters at 0 when they run. For the counters of the cache, call
/// [`UsageService::register_metrics`](crate::usage::UsageService::register_metrics).
pub fn describe_metrics() {
    let count = Unit::Count;
    describe_counter!(
        "netagg_events_consumed_total",
        count,
        "Records read from the topic, including redelivered records."
    );
    describe_counter!("netagg_events_stored_total", count, "Events newly stored in events_raw.");
    describe_counter!("netagg_events_aggregated_total", count, "Events newly counted into the totals.");
    describe_counter!(
        "netagg_duplicates_total",
        count,
        "Events that were known before with the same content, including redelivered events."
    );
    describe_counter!(
        "netagg_conflicting_duplicates_total",
        count,
        "Events that were known before with other content; the first copy stays."
    );
    describe_counter!(
        "netagg_dead_letters_total",
        count,
        "Records without a valid event, sent to the dead-letter topic, by kind of error."
    );
    describe_counter!(
        "netagg_retries_total",
        count,
        "Attempts that failed because of a dependency and are retried, by dependency."
    );
    describe_counter!(
        "netagg_repaired_days_total",
        count,
        "Days whose totals were computed again from the stored events: after a conflict, or after events that were set \
         aside moved to their month partition."
    );
    describe_counter!("netagg_cache_lookups_total", count, "Lookups in the cache of responses, by outcome.");
    describe_histogram!("netagg_batch_records", count, "Records of each finished batch.");
    describe_histogram!(
        "netagg_batch_duration_seconds",
        Unit::Seconds,
        "Time from the start of a batch until it is durably done, including retries."
    );
    describe_gauge!("netagg_dependency_up", count, "1 if the dependency can be used, as /readyz reports; otherwise 0.");
}

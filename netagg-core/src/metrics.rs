//! The metrics of this crate: their meanings, units and recommended buckets.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Recommended buckets of the histogram `netagg_batch_records`. Batches hold up to
/// [`ConsumerConfig::batch_size`](crate::ConsumerConfig::batch_size) records, 5,000 by default.
pub const BATCH_RECORDS_BUCKETS: &[f64] =
    &[1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0];

/// Recommended buckets of the histogram `netagg_batch_seconds`: from a batch of one record to one that waits for a database
/// that is away.
pub const BATCH_SECONDS_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Describes the metrics of this crate to the recorder in scope: their units and meanings. Installs nothing.
///
/// [`Ingestor`](crate::Ingestor::register_metrics) and [`Aggregator`](crate::Aggregator::register_metrics) register their
/// counters at 0 when they run; for those of the cache call
/// [`UsageService::register_metrics`](crate::usage::UsageService::register_metrics).
pub fn describe_metrics() {
    let count = Unit::Count;
    describe_counter!("netagg_events_consumed_total", count, "Records read from the topic, redelivered ones included.");
    describe_counter!("netagg_events_stored_total", count, "Events newly stored in events_raw.");
    describe_counter!("netagg_events_counted_total", count, "Events newly counted into the totals.");
    describe_counter!(
        "netagg_duplicates_total",
        count,
        "Events that were there before with the same content, redelivered ones included."
    );
    describe_counter!(
        "netagg_conflicting_duplicates_total",
        count,
        "Events that were there before with other content; the first copy counts."
    );
    describe_counter!(
        "netagg_dead_letters_total",
        count,
        "Records that hold no valid event and were sent to the dead-letter topic, by kind of error."
    );
    describe_counter!(
        "netagg_retries_total",
        count,
        "Attempts that failed because of a dependency and are made again, by dependency."
    );
    describe_counter!(
        "netagg_repaired_days_total",
        count,
        "Days whose totals were computed anew from the stored events after a conflict."
    );
    describe_counter!("netagg_cache_lookups_total", count, "Answers looked for in the cache, by outcome.");
    describe_histogram!("netagg_batch_records", count, "Records of each finished batch.");
    describe_histogram!(
        "netagg_batch_seconds",
        Unit::Seconds,
        "Time from a batch's start to its being durably done, retries included."
    );
    describe_gauge!("netagg_dependency_up", count, "1 if the dependency can be used, as /readyz says; else 0.");
}

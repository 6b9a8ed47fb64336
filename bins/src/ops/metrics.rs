//! `/metrics`: what a service counts and measures, in Prometheus' text format 0.0.4.
//!
//! The libraries count where things happen; here is what each metric means, in which unit, and which service has it.
//! `docs/operations.md` tells operators the same, and what to do when one moves.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use netagg_core::InvalidKind;
use netagg_kafka::KafkaHealth;
use netagg_pg::Postgres;
use tokio_util::sync::CancellationToken;

use super::Readiness;
use crate::Failure;
use crate::logging::lost_lines;

/// How often samples of histograms are put into their buckets when nobody scrapes: they would pile up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Batches hold up to `*_BATCH_SIZE` records, 5,000 by default.
const RECORDS: [f64; 12] =
    [1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0];

/// From a batch of one record to one that waits for a database that is away.
const BATCH_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// From an answer out of the cache to one that times out.
const REQUEST_SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What kind of service counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Job {
    /// Stores events.
    Ingestor,
    /// Counts events.
    Aggregator,
    /// Answers.
    Api,
}

/// Sets gauges to what is the case now.
type Sampler = Box<dyn Fn() + Send + Sync>;

/// What a service counts as it goes, and what it looks at when it is asked.
pub struct Metrics {
    counted: PrometheusHandle,
    samplers: Mutex<Vec<Sampler>>,
}

impl Metrics {
    /// Counts for the whole process from here on; what a `job` counts is there at once, at zero.
    ///
    /// # Errors
    /// When something in this process counts already.
    pub fn install(job: Job) -> Result<Self, Failure> {
        let buckets = [
            ("netagg_batch_records", &RECORDS[..]),
            ("netagg_batch_seconds", &BATCH_SECONDS),
            ("netagg_http_request_seconds", &REQUEST_SECONDS),
            ("netagg_grpc_request_seconds", &REQUEST_SECONDS),
        ];
        let mut builder = PrometheusBuilder::new();
        for (name, buckets) in buckets {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
                .map_err(|error| Failure::Failed(error.into()))?;
        }
        let counted = builder.install_recorder().map_err(|error| Failure::Failed(error.into()))?;
        describe_counted();
        start_at_zero(job);
        let metrics = Self { counted, samplers: Mutex::default() };
        let process = metrics_process::Collector::default();
        metrics.sample(move || {
            process.describe();
            process.collect();
        });
        metrics.sample(|| counter!("netagg_log_lines_lost_total").absolute(lost_lines()));
        metrics.sample(|| {
            let labels = [("version", env!("CARGO_PKG_VERSION")), ("rust", env!("NETAGG_RUST"))];
            gauge!("netagg_build_info", &labels).set(1.0);
        });
        Ok(metrics)
    }

    /// Has `sampler` set gauges each time somebody asks. What it does not set then is not there: a partition that
    /// moved on to another member leaves no figure behind.
    pub fn sample(&self, sampler: impl Fn() + Send + Sync + 'static) {
        self.samplers().push(Box::new(sampler));
    }

    /// Shows which dependencies can be used.
    pub fn sample_readiness(&self, readiness: Arc<Readiness>) {
        self.sample(move || {
            for (dependency, is_up) in readiness.states() {
                gauge!("netagg_dependency_up", "dependency" => dependency).set(if is_up { 1.0 } else { 0.0 });
            }
        });
    }

    /// Shows the connections of `postgres`.
    pub fn sample_pool(&self, postgres: &Postgres) {
        let postgres = postgres.clone();
        self.sample(move || {
            let pool = postgres.pool_use();
            for (state, connections) in [("idle", pool.idle), ("used", pool.used), ("max", pool.max)] {
                gauge!("netagg_pool_connections", "state" => state).set(connections);
            }
        });
    }

    /// Shows how many events are set aside.
    pub fn sample_set_aside(&self, events: Arc<AtomicU64>) {
        self.sample(move || gauge!("netagg_events_set_aside").set(events.load(Relaxed) as f64));
    }

    /// Shows how far the consumer is behind.
    pub fn sample_lag(&self, health: KafkaHealth) {
        self.sample(move || {
            gauge!("netagg_commit_age_seconds").set(health.commit_age());
            counter!("netagg_consumers_replaced_total").absolute(health.replaced());
            counter!("netagg_offsets_deleted_unread_total").absolute(health.deleted_unread());
            for lag in health.lag() {
                let labels =
                    [("topic", lag.partition.topic.to_string()), ("partition", lag.partition.number.to_string())];
                gauge!("netagg_consumer_lag_events", &labels).set(lag.events as f64);
                gauge!("netagg_consumer_lag_seconds", &labels).set(lag.age);
            }
        });
    }

    /// Everything, as text.
    pub fn render(&self) -> String {
        let now = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&now, || {
            describe_sampled();
            self.samplers().iter().for_each(|sampler| sampler());
        });
        self.counted.render() + &now.handle().render()
    }

    /// Sorts samples of histograms in now and then until `stop`.
    pub(crate) async fn keep_up(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
            self.counted.run_upkeep();
        }
    }

    fn samplers(&self) -> std::sync::MutexGuard<'_, Vec<Sampler>> {
        self.samplers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl IntoResponse for &Metrics {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.render()).into_response()
    }
}

fn describe_counted() {
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
    describe_counter!(
        "netagg_refused_requests_total",
        count,
        "Requests to the API that were not looked at, by reason."
    );
    describe_counter!(
        "netagg_tls_handshake_failures_total",
        count,
        "Connections to the API that came to no agreement on TLS."
    );
    describe_gauge!(
        "netagg_tls_certificate_expiry_timestamp_seconds",
        Unit::Seconds,
        "When the API's certificate ends, in Unix time."
    );
    describe_histogram!("netagg_batch_records", count, "Records of each finished batch.");
    describe_histogram!(
        "netagg_batch_seconds",
        Unit::Seconds,
        "Time from a batch's start to its being durably done, retries included."
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

fn describe_sampled() {
    describe_counter!(
        "netagg_offsets_deleted_unread_total",
        Unit::Count,
        "Offsets that the broker had deleted before they were read: their records are lost."
    );
    describe_counter!(
        "netagg_consumers_replaced_total",
        Unit::Count,
        "Kafka consumers that received nothing although the broker had records for them, and were replaced."
    );
    describe_gauge!(
        "netagg_consumer_lag_events",
        Unit::Count,
        "Offsets of an assigned partition that are not durably done, as of a second ago."
    );
    describe_gauge!(
        "netagg_consumer_lag_seconds",
        Unit::Seconds,
        "Age of the oldest record of an assigned partition that was read and is not durably done, by its timestamp; \
         while none was read, how long there has been one to read; 0 without lag."
    );
    describe_gauge!(
        "netagg_commit_age_seconds",
        Unit::Seconds,
        "Longest time without a new commit for an assigned partition of which more is read than committed; 0 if there \
         is none such."
    );
    describe_gauge!(
        "netagg_events_set_aside",
        Unit::Count,
        "Events that are accepted and wait for a partition of their month, as of some seconds ago."
    );
    describe_gauge!(
        "netagg_pool_connections",
        Unit::Count,
        "Connections to PostgreSQL: open and idle, in use, and the most there may be."
    );
    describe_gauge!("netagg_dependency_up", Unit::Count, "1 if the dependency can be used, as /readyz says; else 0.");
    describe_counter!(
        "netagg_log_lines_lost_total",
        Unit::Count,
        "Lines of the log that stderr did not take: it was full, closed, or not read for 100 ms."
    );
    describe_gauge!("netagg_build_info", Unit::Count, "Always 1; its labels say what this program was built from.");
}

/// A counter that first shows when it moves hides its first move.
fn start_at_zero(job: Job) {
    if job == Job::Api {
        for outcome in ["kept", "hit", "miss", "unavailable"] {
            counter!("netagg_cache_lookups_total", "outcome" => outcome).absolute(0);
        }
        for reason in ["no_credentials", "bad_credentials", "rate_limit", "overload", "unavailable"] {
            counter!("netagg_refused_requests_total", "reason" => reason).absolute(0);
        }
        counter!("netagg_tls_handshake_failures_total").absolute(0);
        return;
    }
    counter!("netagg_events_consumed_total").absolute(0);
    counter!("netagg_duplicates_total").absolute(0);
    counter!("netagg_conflicting_duplicates_total").absolute(0);
    if job == Job::Ingestor {
        counter!("netagg_events_stored_total").absolute(0);
        for kind in InvalidKind::ALL {
            counter!("netagg_dead_letters_total", "kind" => kind.as_str()).absolute(0);
        }
    } else {
        counter!("netagg_events_counted_total").absolute(0);
        counter!("netagg_repaired_days_total").absolute(0);
        counter!("netagg_retries_total", "dependency" => "redis").absolute(0);
    }
    for dependency in ["kafka", "postgres"] {
        counter!("netagg_retries_total", "dependency" => dependency).absolute(0);
    }
}

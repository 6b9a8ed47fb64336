//! `/metrics`: what a service counts and measures, in Prometheus' text format 0.0.4.
//!
//! The libraries count where things happen, and describe what they count. `docs/operations.md` tells operators the same, and
//! what to do when a metric moves.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use netagg_api::REQUEST_SECONDS_BUCKETS;
use netagg_core::{BATCH_RECORDS_BUCKETS, BATCH_SECONDS_BUCKETS};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::logging::lost_lines;

/// How often samples of histograms are put into their buckets when nobody scrapes: they would pile up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Sets gauges to what is the case now.
type Sampler = Box<dyn Fn() + Send + Sync>;

/// What a service counts as it goes, and what it looks at when it is asked.
pub struct Metrics {
    counted: PrometheusHandle,
    samplers: Mutex<Vec<Sampler>>,
}

impl Metrics {
    /// Counts for the whole process from here on.
    ///
    /// # Errors
    /// When something in this process counts already.
    pub fn install() -> Result<Self, Failure> {
        let buckets = [
            ("netagg_batch_records", BATCH_RECORDS_BUCKETS),
            ("netagg_batch_seconds", BATCH_SECONDS_BUCKETS),
            ("netagg_http_request_seconds", REQUEST_SECONDS_BUCKETS),
            ("netagg_grpc_request_seconds", REQUEST_SECONDS_BUCKETS),
        ];
        let mut builder = PrometheusBuilder::new();
        for (name, buckets) in buckets {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
                .map_err(|error| Failure::Failed(error.into()))?;
        }
        let counted = builder.install_recorder().map_err(|error| Failure::Failed(error.into()))?;
        describe();
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

    /// Everything, as text.
    pub fn render(&self) -> String {
        let now = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&now, || {
            describe();
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

/// The metrics of the libraries, then those of the programs.
fn describe() {
    netagg_core::describe_metrics();
    netagg_kafka::describe_metrics();
    netagg_pg::describe_metrics();
    netagg_api::describe_metrics();
    describe_counter!(
        "netagg_log_lines_lost_total",
        Unit::Count,
        "Lines of the log that stderr did not take: it was full, closed, or not read for 100 ms."
    );
    describe_gauge!("netagg_build_info", Unit::Count, "Always 1; its labels say what this program was built from.");
}

//! The metrics recorder of a service, and gauges that are set for each scrape.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::with_local_recorder;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use netagg_core::{BATCH_RECORDS_BUCKETS, BATCH_SECONDS_BUCKETS};
use tokio_util::sync::CancellationToken;

use crate::metrics::REQUEST_SECONDS_BUCKETS;

/// How often histogram samples are moved into their buckets between two calls of `render`. Otherwise they would accumulate.
const UPKEEP: Duration = Duration::from_secs(5);

/// Sets gauges to the present values.
type Sampler = Box<dyn Fn() + Send + Sync>;

/// The metrics of a process in Prometheus' text format: the metrics that the libraries record, and gauges that are set at each
/// call of [`render`](Self::render).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use netagg_api::OpsMetrics;
///
/// let metrics = OpsMetrics::install(|| {
///     netagg_core::describe_metrics();
///     netagg_api::describe_metrics();
/// })?;
/// metrics.sample(|| metrics::gauge!("queue_length").set(3.0));
/// assert!(metrics.render().contains("queue_length 3"));
/// // `ops_router(readiness, move || metrics.render())` shows them at `/metrics`.
/// # Ok(())
/// # }
/// ```
pub struct OpsMetrics {
    recorded: PrometheusHandle,
    describe: Box<dyn Fn() + Send + Sync>,
    samplers: Mutex<Vec<Sampler>>,
}

impl OpsMetrics {
    /// Installs a recorder for the process, with the buckets that netagg recommends. `describe` describes the metrics: call
    /// `describe_metrics` of each netagg crate in use.
    ///
    /// # Errors
    /// If the process already has a recorder.
    pub fn install(describe: impl Fn() + Send + Sync + 'static) -> Result<Self, BuildError> {
        let buckets = [
            ("netagg_batch_records", BATCH_RECORDS_BUCKETS),
            ("netagg_batch_duration_seconds", BATCH_SECONDS_BUCKETS),
            ("netagg_http_request_duration_seconds", REQUEST_SECONDS_BUCKETS),
            ("netagg_grpc_request_duration_seconds", REQUEST_SECONDS_BUCKETS),
        ];
        let mut builder = PrometheusBuilder::new();
        for (name, buckets) in buckets {
            builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
        }
        let recorded = builder.install_recorder()?;
        describe();
        Ok(Self { recorded, describe: Box::new(describe), samplers: Mutex::default() })
    }

    /// Calls `sampler` at each call of [`render`](Self::render), to set gauges. Their values are not kept for the next call: a
    /// partition that moved to another member leaves no stale gauge. Gauges that are set elsewhere keep their last value.
    pub fn sample(&self, sampler: impl Fn() + Send + Sync + 'static) {
        self.samplers().push(Box::new(sampler));
    }

    /// All metrics, as text.
    pub fn render(&self) -> String {
        let now = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&now, || {
            (self.describe)();
            self.samplers().iter().for_each(|sampler| sampler());
        });
        self.recorded.render() + &now.handle().render()
    }

    /// Moves histogram samples into their buckets periodically, until `stop`. Without it the samples take memory until the next
    /// call of [`render`](Self::render).
    pub async fn upkeep_loop(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
            self.recorded.run_upkeep();
        }
    }

    fn samplers(&self) -> MutexGuard<'_, Vec<Sampler>> {
        self.samplers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OpsMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpsMetrics").finish_non_exhaustive()
    }
}

//! The batch settings and timeouts of a consumer.

use std::time::Duration;

use crate::retry_policy::RetryPolicy;

/// How long batches may take to give up their retries after the drain timeout.
pub(super) const ABANDON_GRACE: Duration = Duration::from_secs(2);

/// The batch settings and timeouts of a consumer. A zero counts as the smallest value that works.
///
/// The memory is bounded: at most `batches_in_flight + 1` times `batch_bytes`, decoded and encoded, and the records that the
/// source fetches ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// The largest number of records in a batch. Default: 5,000.
    pub batch_size: usize,
    /// The size of records in bytes from which a batch is full. One record may be larger. Default: 4 MiB.
    pub batch_bytes: usize,
    /// The longest time that a record waits until its batch is full. Default: 50 ms.
    pub batch_timeout: Duration,
    /// The largest number of batches that are processed at a time. Default: 4.
    pub batches_in_flight: usize,
    /// How often the consumer passes positions to the source for a commit. Default: 1 s.
    pub commit_interval: Duration,
    /// How failed attempts are retried.
    pub retry: RetryPolicy,
    /// How long a stop waits for batches in flight before it abandons them. Abandoned batches are delivered again. Default: 15 s.
    pub drain_timeout: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            batch_size: 5_000,
            batch_bytes: 4 << 20,
            batch_timeout: Duration::from_millis(50),
            batches_in_flight: 4,
            commit_interval: Duration::from_secs(1),
            retry: RetryPolicy::default(),
            drain_timeout: Duration::from_secs(15),
        }
    }
}

impl ConsumerConfig {
    /// The longest time from a stop to the end of the last batch. Closing the source comes after it.
    ///
    /// Give the process at least this time before it is killed: see
    /// [`terminationGracePeriodSeconds`](https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination).
    pub fn stop_timeout(&self) -> Duration {
        self.drain_timeout + ABANDON_GRACE
    }

    /// The same settings, with the smallest value that works in place of each zero.
    pub(super) fn without_zeros(self) -> Self {
        Self {
            batch_size: self.batch_size.max(1),
            batch_bytes: self.batch_bytes.max(1),
            batches_in_flight: self.batches_in_flight.max(1),
            commit_interval: self.commit_interval.max(Duration::from_millis(1)),
            ..self
        }
    }
}

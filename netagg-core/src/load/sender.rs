//! Sends the events of a model at a rate, with duplicates and invalid messages mixed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::error::LoadError;
use super::event_model::EventModel;
use crate::event::Event;
use crate::ports::EventPublisher;
use crate::record::OutgoingRecord;

/// How fast and how long events are sent, and how many duplicates and invalid records with them.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct LoadConfig {
    /// Valid, distinct events per second, of all workers together; `None` for as many as the publisher takes.
    pub events_per_sec: Option<u64>,
    /// How many events to send; `None` until the duration is over.
    pub events: Option<u64>,
    /// How long to send; `None` until all are sent, or stopped.
    pub duration: Option<Duration>,
    /// Events of one publish call.
    pub batch_size: u64,
    /// Publish calls at a time.
    pub workers: u64,
    /// Share of events that are sent a second time.
    pub duplicate_rate: f64,
    /// Invalid messages for each valid event.
    pub invalid_rate: f64,
}

impl Default for LoadConfig {
    /// 1,000 events per second for a minute, in four batches of 100 at a time; 1 % of the events twice.
    fn default() -> Self {
        Self {
            events_per_sec: Some(1_000),
            events: None,
            duration: Some(Duration::from_secs(60)),
            batch_size: 100,
            workers: 4,
            duplicate_rate: 0.01,
            invalid_rate: 0.0,
        }
    }
}

impl LoadConfig {
    /// Events of one publish call: fewer than configured at rates so low that they would come in bursts.
    fn batch_size(&self) -> u64 {
        /// Calls of each worker in a second, at least.
        const CALLS_PER_SEC: u64 = 10;
        self.events_per_sec
            .map_or(self.batch_size, |rate| self.batch_size.min((rate / (self.workers * CALLS_PER_SEC)).max(1)))
    }
}

/// Numbers of events that the broker has, and when it took them.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Sent {
    /// The events' numbers in the model.
    pub numbers: std::ops::Range<u64>,
    /// When they were handed to the broker.
    pub at: Instant,
}

/// Counts what was sent.
#[derive(Debug, Default)]
pub struct LoadStats {
    events: AtomicU64,
    duplicates: AtomicU64,
    invalid: AtomicU64,
}

impl LoadStats {
    /// Distinct valid events.
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// Valid events that were sent again.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Relaxed)
    }

    /// Invalid messages.
    pub fn invalid(&self) -> u64 {
        self.invalid.load(Relaxed)
    }
}

/// Sends until the events or the time of `config` are over, or until `stop`, and reports to `sent` which events the broker
/// has. Once all is sent, these are exactly the numbers below [`LoadStats::events`].
///
/// # Errors
/// An error of the publisher that no repetition can help; retryable errors are repeated. A defect of the model.
pub async fn send(
    model: Arc<EventModel>,
    config: LoadConfig,
    publisher: Arc<dyn EventPublisher>,
    stats: Arc<LoadStats>,
    sent: mpsc::Sender<Sent>,
    stop: CancellationToken,
) -> Result<(), LoadError> {
    let deadline = config.duration.map(|duration| Instant::now() + duration);
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for number in 0..config.workers {
        let worker = Worker {
            number,
            model: model.clone(),
            config: config.clone(),
            publisher: publisher.clone(),
            stats: stats.clone(),
            sent: sent.clone(),
            stop: stop.clone(),
            deadline,
            next: next.clone(),
            random: SmallRng::seed_from_u64(number),
        };
        workers.spawn(worker.run());
    }
    while let Some(finished) = workers.join_next().await {
        finished??;
    }
    Ok(())
}

struct Worker {
    number: u64,
    model: Arc<EventModel>,
    config: LoadConfig,
    publisher: Arc<dyn EventPublisher>,
    stats: Arc<LoadStats>,
    sent: mpsc::Sender<Sent>,
    stop: CancellationToken,
    deadline: Option<Instant>,
    /// The first number no worker has taken.
    next: Arc<AtomicU64>,
    random: SmallRng,
}

impl Worker {
    async fn run(mut self) -> Result<(), LoadError> {
        let batch_size = self.config.batch_size();
        let mut pace = self.config.events_per_sec.map(|rate| {
            let period = Duration::from_secs_f64((batch_size * self.config.workers) as f64 / rate as f64);
            // The workers take turns.
            let first = period.mul_f64((self.number + 1) as f64 / self.config.workers as f64);
            let mut pace = interval_at(Instant::now() + first, period);
            // Behind after a pause, the worker catches up: the rate is an average.
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            pace
        });
        let deadline = self.deadline;
        loop {
            let due = async {
                if let Some(pace) = &mut pace {
                    pace.tick().await;
                }
            };
            let over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = over => return Ok(()),
                () = due => {}
            }
            let first = self.next.fetch_add(batch_size, Relaxed);
            let end = (first + batch_size).min(self.config.events.unwrap_or(u64::MAX));
            if first >= end {
                return Ok(());
            }
            let (records, duplicates, invalid) = self.batch(first..end)?;
            let at = Instant::now();
            self.publish(records).await?;
            self.stats.events.fetch_add(end - first, Relaxed);
            self.stats.duplicates.fetch_add(duplicates, Relaxed);
            self.stats.invalid.fetch_add(invalid, Relaxed);
            // The receiver may have gone.
            let _ = self.sent.send(Sent { numbers: first..end, at }).await;
        }
    }

    fn batch(&mut self, numbers: std::ops::Range<u64>) -> Result<(Vec<OutgoingRecord>, u64, u64), LoadError> {
        let mut records = Vec::with_capacity(numbers.end.saturating_sub(numbers.start) as usize);
        let (mut duplicates, mut invalid) = (0, 0);
        for number in numbers {
            records.push(record(&self.model.event(number)?));
            if self.random.random_bool(self.config.duplicate_rate) {
                // Half of them at once, as a retrying producer sends; half of them long after.
                let again = if self.random.random() { number } else { self.random.random_range(0..=number) };
                records.push(record(&self.model.event(again)?));
                duplicates += 1;
            }
            if self.random.random_bool(self.config.invalid_rate) {
                records.push(OutgoingRecord::new(self.model.invalid(number)?));
                invalid += 1;
            }
        }
        Ok((records, duplicates, invalid))
    }

    /// Publishes, however often it takes: what was taken before is a duplicate then, which changes no total.
    async fn publish(&self, records: Vec<OutgoingRecord>) -> Result<(), LoadError> {
        let mut delays = ExponentialBuilder::default().with_jitter().without_max_times().build();
        loop {
            match self.publisher.publish(records.clone()).await {
                Err(error) if error.is_retryable() && !self.stop.is_cancelled() => {
                    tracing::warn!(%error, "sending again");
                    sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// The event as a record keyed by its user.
pub(super) fn record(event: &Event) -> OutgoingRecord {
    event.keyed_record(event.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryLog;
    use crate::ports::{Clock, SystemClock};

    async fn sent(rate: u64, seconds: u64, workers: u64) -> u64 {
        let config = LoadConfig {
            events_per_sec: Some(rate),
            events: None,
            duration: Some(Duration::from_secs(seconds)),
            batch_size: 100,
            workers,
            duplicate_rate: 0.0,
            invalid_rate: 0.0,
        };
        let model = Arc::new(EventModel::new(1, 10, SystemClock.now()).expect("a model"));
        let stats = Arc::new(LoadStats::default());
        let (sent, mut received) = mpsc::channel(1);
        tokio::spawn(async move { while received.recv().await.is_some() {} });
        let begun = Instant::now();
        let log = Arc::new(MemoryLog::new("events", 1));
        send(model, config, log, stats.clone(), sent, CancellationToken::new()).await.expect("sent");
        assert_eq!(begun.elapsed().as_secs(), seconds, "it ends when its time is over");
        stats.events()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_also_when_it_is_low() {
        for (rate, seconds, workers) in [(1, 10, 4), (10, 3, 4), (150, 3, 4), (500, 1, 4), (5_000, 4, 4), (7, 10, 3)] {
            let (sent, expected) = (sent(rate, seconds, workers).await, rate * seconds);
            // The last instant counts or doesn't.
            assert!(sent <= expected && sent + expected / 20 + workers >= expected, "{sent} of {expected}");
        }
    }
}

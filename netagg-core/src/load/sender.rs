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

/// The settings of a load: how fast and how long it sends events, and how many duplicates and invalid records it adds.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct LoadConfig {
    /// The number of distinct valid events per second, for all workers together; `None` means as many as the publisher accepts.
    pub events_per_sec: Option<u64>,
    /// The number of events to send; `None` means that sending ends after the duration.
    pub events: Option<u64>,
    /// How long to send; `None` means until all events are sent, or until the caller stops the load.
    pub duration: Option<Duration>,
    /// The number of events in one publish call.
    pub batch_size: u64,
    /// The number of publish calls at the same time.
    pub workers: u64,
    /// The share of events that are sent a second time, from 0 to 1.
    pub duplicate_rate: f64,
    /// The number of invalid messages for each valid event, from 0 to 1.
    pub invalid_rate: f64,
}

impl Default for LoadConfig {
    /// 1,000 events per second for a minute, in batches of 100, with four batches at the same time. 1 % of the events are sent
    /// twice.
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
    /// The number of events in one publish call. At a low rate it is smaller than configured, because large batches would
    /// arrive in bursts.
    fn batch_size(&self) -> u64 {
        /// The minimum number of calls of each worker per second.
        const CALLS_PER_SEC: u64 = 10;
        self.events_per_sec
            .map_or(self.batch_size, |rate| self.batch_size.min((rate / (self.workers * CALLS_PER_SEC)).max(1)))
    }
}

/// The numbers of events that the broker has accepted, and the time of sending.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Sent {
    /// The numbers of the events in the model.
    pub numbers: std::ops::Range<u64>,
    /// The time just before the publish call.
    pub at: Instant,
}

/// The numbers of events, duplicates and invalid messages that were sent.
#[derive(Debug, Default)]
pub struct LoadStats {
    events: AtomicU64,
    duplicates: AtomicU64,
    invalid: AtomicU64,
}

impl LoadStats {
    /// The number of distinct valid events.
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// The number of valid events that were sent again.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Relaxed)
    }

    /// The number of invalid messages.
    pub fn invalid(&self) -> u64 {
        self.invalid.load(Relaxed)
    }
}

/// Sends events until the number of events or the duration of `config` is reached, or until `stop`. Reports to `sent` which
/// events the broker has accepted. When sending is finished, the accepted events are exactly the numbers below
/// [`LoadStats::events`].
///
/// # Errors
/// An error of the publisher that is not retryable, or a defect of the model. After a retryable error, the call sends again.
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
    /// The first number that no worker has taken.
    next: Arc<AtomicU64>,
    random: SmallRng,
}

impl Worker {
    async fn run(mut self) -> Result<(), LoadError> {
        let batch_size = self.config.batch_size();
        let mut pace = self.config.events_per_sec.map(|rate| {
            let period = Duration::from_secs_f64((batch_size * self.config.workers) as f64 / rate as f64);
            // The workers send at different times within the period.
            let first = period.mul_f64((self.number + 1) as f64 / self.config.workers as f64);
            let mut pace = interval_at(Instant::now() + first, period);
            // A worker that is late after a pause sends faster until it has caught up: the rate is an average.
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
            // The receiver may be closed already.
            let _ = self.sent.send(Sent { numbers: first..end, at }).await;
        }
    }

    fn batch(&mut self, numbers: std::ops::Range<u64>) -> Result<(Vec<OutgoingRecord>, u64, u64), LoadError> {
        let mut records = Vec::with_capacity(numbers.end.saturating_sub(numbers.start) as usize);
        let (mut duplicates, mut invalid) = (0, 0);
        for number in numbers {
            records.push(record(&self.model.event(number)?));
            if self.random.random_bool(self.config.duplicate_rate) {
                // Half of the duplicates repeat this event, as from a producer that retries. The other half repeat an earlier
                // event.
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

    /// Publishes `records`, and retries after each retryable error until `stop`. A retry may repeat records that the broker has
    /// already accepted. They are duplicates and change no total.
    async fn publish(&self, records: Vec<OutgoingRecord>) -> Result<(), LoadError> {
        let mut delays = ExponentialBuilder::default().with_jitter().without_max_times().build();
        loop {
            match self.publisher.publish(records.clone()).await {
                Err(error) if error.is_retryable() && !self.stop.is_cancelled() => {
                    tracing::warn!(%error, "cannot publish a batch; sending it again");
                    sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Returns the event as a record with the user as its key.
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
        assert_eq!(begun.elapsed().as_secs(), seconds, "sending ends after the configured duration");
        stats.events()
    }

    #[tokio::test(start_paused = true)]
    async fn the_sender_keeps_high_and_low_rates() {
        for (rate, seconds, workers) in [(1, 10, 4), (10, 3, 4), (150, 3, 4), (500, 1, 4), (5_000, 4, 4), (7, 10, 3)] {
            let (sent, expected) = (sent(rate, seconds, workers).await, rate * seconds);
            // The batch at the last instant may or may not be sent.
            assert!(sent <= expected && sent + expected / 20 + workers >= expected, "{sent} of {expected}");
        }
    }
}

//! The verifier: it checks that each sent event is stored exactly once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::error::LoadError;
use super::event_model::EventModel;
use super::sender::Sent;
use super::stored_copies::StoredCopies;
use crate::event::Event;

/// The number of events in one lookup.
const CHUNK: u64 = 5_000;
/// After all events are sent, the verifier waits this long for another event to become visible. Then the remaining events
/// count as missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// After this part of [`PATIENCE`], the log explains why the verifier still waits.
const HINT: Duration = Duration::from_secs(10);
/// The interval between two lookups of an event whose latency is measured.
const LATENCY_POLL: Duration = Duration::from_millis(2);
/// The minimum interval between two measurements of latency.
const LATENCY_EVERY: Duration = Duration::from_millis(100);

/// The results of the verification so far.
#[derive(Debug, Default)]
pub(super) struct VerifyStats {
    verified: AtomicU64,
    failed: AtomicU64,
    latency_micros: AtomicU64,
    latency_samples: AtomicU64,
}

impl VerifyStats {
    /// The number of events that were found in the store.
    pub(super) fn verified(&self) -> u64 {
        self.verified.load(Relaxed)
    }

    /// The number of events that are missing or stored more than once.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// The average time from sending an event until it is visible, over all measured events.
    pub(super) fn average_latency(&self) -> Option<Duration> {
        let samples = self.latency_samples.load(Relaxed);
        (samples > 0).then(|| Duration::from_micros(self.latency_micros.load(Relaxed) / samples))
    }
}

/// Verifies the events of one run.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    pub(super) model: Arc<EventModel>,
    pub(super) store: Arc<dyn StoredCopies>,
    pub(super) stats: Arc<VerifyStats>,
}

impl Verifier {
    /// Looks for the sent events at the interval `every`. Ends when sending has ended and all events are visible. Also ends
    /// after `stop`, or when no event has become visible for [`PATIENCE`].
    pub(super) async fn follow(
        &self,
        mut sent: mpsc::Receiver<Sent>,
        every: Duration,
        stop: CancellationToken,
    ) -> Result<(), LoadError> {
        let mut waiting = VecDeque::new();
        let mut is_sending = true;
        let mut last_progress = Instant::now();
        let mut is_warned = false;
        while is_sending || !waiting.is_empty() {
            let mut next_look = std::pin::pin!(sleep(if is_sending { every } else { Duration::from_millis(200) }));
            // The verifier also receives while it waits, so that the senders never wait for it.
            loop {
                tokio::select! {
                    received = sent.recv(), if is_sending => match received {
                        Some(batch) => waiting.push_back(batch.numbers),
                        None => {
                            is_sending = false;
                            last_progress = Instant::now();
                            break;
                        }
                    },
                    () = &mut next_look => break,
                }
            }
            let before = self.stats.verified();
            self.look(&mut waiting).await?;
            if self.stats.verified() > before {
                last_progress = Instant::now();
            } else if !is_sending && last_progress.elapsed() > HINT && !std::mem::replace(&mut is_warned, true) {
                let seconds = PATIENCE.as_secs();
                tracing::warn!(
                    "no more events become visible in the store; is the ingestor running? Waiting up to {seconds} s"
                );
            } else if !is_sending && (last_progress.elapsed() > PATIENCE || stop.is_cancelled()) {
                break;
            }
        }
        Ok(())
    }

    /// Looks once for all events in `waiting`. Afterwards `waiting` contains the events that are not stored yet.
    async fn look(&self, waiting: &mut VecDeque<std::ops::Range<u64>>) -> Result<(), LoadError> {
        let mut absent = VecDeque::new();
        while !waiting.is_empty() {
            let mut numbers = Vec::new();
            while (numbers.len() as u64) < CHUNK
                && let Some(range) = waiting.pop_front()
            {
                numbers.extend(range);
            }
            let counts = self.count(&numbers).await?;
            for (number, count) in numbers.into_iter().zip(counts) {
                if count > 0 {
                    self.stats.verified.fetch_add(1, Relaxed);
                } else {
                    absent.push_back(number..number + 1);
                }
            }
        }
        *waiting = absent;
        Ok(())
    }

    /// Checks each of the first `events` events of the run. An event is verified if it is stored exactly once. Otherwise it has
    /// failed.
    pub(super) async fn check(&self, events: u64) -> Result<(), LoadError> {
        let (mut verified, mut failed) = (0, 0);
        let mut first = 0;
        while first < events {
            let end = (first + CHUNK).min(events);
            let numbers: Vec<u64> = (first..end).collect();
            for (number, count) in numbers.iter().zip(self.count(&numbers).await?) {
                if count == 1 {
                    verified += 1;
                } else {
                    failed += 1;
                    if failed <= 10 {
                        let key = self.model.event(*number)?.key();
                        tracing::error!(%key, copies = count, "an event is not stored exactly once");
                    }
                }
            }
            first = end;
        }
        self.stats.verified.store(verified, Relaxed);
        self.stats.failed.store(failed, Relaxed);
        Ok(())
    }

    /// Measures how long events take to become visible. It measures one event at a time, until `sent` ends. It also ends
    /// after `stop`, or if an event is not visible after [`PATIENCE`].
    pub(super) async fn measure(
        &self,
        mut sent: mpsc::Receiver<Sent>,
        stop: CancellationToken,
    ) -> Result<(), LoadError> {
        let mut last = None::<Instant>;
        while let Some(Sent { numbers, at }) = sent.recv().await {
            if last.is_some_and(|last| last.elapsed() < LATENCY_EVERY) {
                continue;
            }
            last = Some(Instant::now());
            let event = [self.model.event(numbers.end - 1)?];
            while self.counts(&event).await?.iter().all(|count| *count == 0) {
                if stop.is_cancelled() || at.elapsed() > PATIENCE {
                    return Ok(());
                }
                sleep(LATENCY_POLL).await;
            }
            self.stats.latency_micros.fetch_add(at.elapsed().as_micros() as u64, Relaxed);
            self.stats.latency_samples.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    async fn count(&self, numbers: &[u64]) -> Result<Vec<u64>, LoadError> {
        let events = numbers.iter().map(|number| self.model.event(*number)).collect::<Result<Vec<_>, _>>()?;
        self.counts(&events).await
    }

    /// Counts the stored copies of `events`, and retries after each retryable error.
    async fn counts(&self, events: &[Event]) -> Result<Vec<u64>, LoadError> {
        loop {
            match self.store.count_copies(events).await {
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, "cannot look for events in the store; looking again");
                    sleep(Duration::from_secs(1)).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

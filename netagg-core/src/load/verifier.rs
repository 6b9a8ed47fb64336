//! Checks that what was sent is stored, once.

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

/// Events that are looked up at a time.
const CHUNK: u64 = 5_000;
/// After the last event was sent, how long nothing new may become visible before the rest counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// After what part of that time a person is told what is waited for.
const HINT: Duration = Duration::from_secs(10);
/// How often an event whose latency is measured is looked for.
const LATENCY_POLL: Duration = Duration::from_millis(2);
/// How often an event is picked to measure its latency.
const LATENCY_EVERY: Duration = Duration::from_millis(100);

/// What verification has found so far.
#[derive(Debug, Default)]
pub(super) struct VerifyStats {
    verified: AtomicU64,
    failed: AtomicU64,
    latency_micros: AtomicU64,
    latency_samples: AtomicU64,
}

impl VerifyStats {
    /// Events found stored, once.
    pub(super) fn verified(&self) -> u64 {
        self.verified.load(Relaxed)
    }

    /// Events missing or stored more than once.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// The average time from sending to being visible, of the events it was measured for.
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
    /// Looks every `every` for what was sent, until all is sent and seen, or nothing more shows up.
    pub(super) async fn follow(
        &self,
        mut sent: mpsc::Receiver<Sent>,
        every: Duration,
        stop: CancellationToken,
    ) -> Result<(), LoadError> {
        let mut waiting = VecDeque::new();
        let mut is_sending = true;
        let mut last_progress = Instant::now();
        let mut is_told = false;
        while is_sending || !waiting.is_empty() {
            let mut next_look = std::pin::pin!(sleep(if is_sending { every } else { Duration::from_millis(200) }));
            // Always receiving, so that the senders never wait for the verifier.
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
            } else if !is_sending && last_progress.elapsed() > HINT && !std::mem::replace(&mut is_told, true) {
                let seconds = PATIENCE.as_secs();
                tracing::warn!("nothing more is stored; waiting up to {seconds} s in all: does the ingestor run?");
            } else if !is_sending && (last_progress.elapsed() > PATIENCE || stop.is_cancelled()) {
                break;
            }
        }
        Ok(())
    }

    /// Looks once for everything in `waiting`, and leaves there what isn't stored yet.
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

    /// Judges every one of the first `events` events of the run: stored once, or failed.
    pub(super) async fn judge(&self, events: u64) -> Result<(), LoadError> {
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

    /// Measures how long events take to become visible, for one after the other, until `sent` ends.
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

    /// Asks until the store answers.
    async fn counts(&self, events: &[Event]) -> Result<Vec<u64>, LoadError> {
        loop {
            match self.store.count_copies(events).await {
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, "looking again");
                    sleep(Duration::from_secs(1)).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

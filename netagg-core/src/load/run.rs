//! A run of a load: it sends events and verifies them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::LoadError;
use super::event_model::EventModel;
use super::report::LoadReport;
use super::sender::{LoadConfig, LoadStats, Sent, send};
use super::stored_copies::StoredCopies;
use super::verifier::{Verifier, VerifyStats};
use crate::ports::EventPublisher;

/// The maximum number of sent batches that the verifier has not received yet.
const SENT_CAPACITY: usize = 1_024;

/// Sends the events of a model, and verifies that each event is stored exactly once.
#[derive(Debug)]
pub struct LoadRun {
    model: Arc<EventModel>,
    config: LoadConfig,
    verify_interval: Duration,
    sent: Arc<LoadStats>,
    verified: Arc<VerifyStats>,
    started: OnceLock<Instant>,
    sent_for: OnceLock<Duration>,
}

impl LoadRun {
    /// A run of `model`, not started yet. Every `verify_interval`, it looks in the store for the sent events.
    pub fn new(model: EventModel, config: LoadConfig, verify_interval: Duration) -> Self {
        Self {
            model: Arc::new(model),
            config,
            verify_interval,
            sent: Arc::default(),
            verified: Arc::default(),
            started: OnceLock::new(),
            sent_for: OnceLock::new(),
        }
    }

    /// The model of the events.
    pub fn model(&self) -> &EventModel {
        &self.model
    }

    /// The current counts and times.
    pub fn report(&self) -> LoadReport {
        let elapsed = || self.started.get().map_or(Duration::ZERO, Instant::elapsed);
        let sending = self.sent_for.get().copied().unwrap_or_else(elapsed);
        let events_sent = self.sent.events();
        LoadReport {
            events_sent,
            events_verified: self.verified.verified(),
            events_failed: self.verified.failed(),
            events_per_sec: events_sent as f64 / sending.as_secs_f64().max(f64::EPSILON),
            avg_latency: self.verified.average_latency(),
        }
    }

    /// Runs the load and returns the final report. Call it once. The run has three steps:
    ///
    /// 1. Send events until the number of events or the duration of the configuration is reached, or until `stop_sending`.
    /// 2. Wait until all sent events are visible, or until no event has become visible for a minute, or until `stop`.
    /// 3. Check each event.
    ///
    /// # Errors
    /// An error of the publisher or the store that is not retryable. The run retries after a retryable error.
    pub async fn run(
        &self,
        publisher: Arc<dyn EventPublisher>,
        store: Arc<dyn StoredCopies>,
        stop_sending: CancellationToken,
        stop: CancellationToken,
    ) -> Result<LoadReport, LoadError> {
        let verifier = Verifier { model: self.model.clone(), store, stats: self.verified.clone() };
        let started = *self.started.get_or_init(Instant::now);
        let (sent, received) = mpsc::channel::<Sent>(SENT_CAPACITY);
        let (to_follow, follow) = mpsc::channel(SENT_CAPACITY);
        let (to_measure, measure) = mpsc::channel(1);
        let sending = async {
            let (model, config) = (self.model.clone(), self.config.clone());
            send(model, config, publisher, self.sent.clone(), sent, stop_sending).await?;
            self.sent_for.get_or_init(|| started.elapsed());
            Ok(())
        };
        tokio::try_join!(
            sending,
            async {
                fan_out(received, to_follow, to_measure).await;
                Ok(())
            },
            verifier.follow(follow, self.verify_interval, stop.clone()),
            verifier.measure(measure, stop),
        )?;
        verifier.check(self.sent.events()).await?;
        Ok(self.report())
    }
}

/// Passes each batch to `follow`. Also passes a batch to `measure` if `measure` can take it at once.
async fn fan_out(mut received: mpsc::Receiver<Sent>, follow: mpsc::Sender<Sent>, measure: mpsc::Sender<Sent>) {
    while let Some(sent) = received.recv().await {
        let _ = measure.try_send(sent.clone());
        if follow.send(sent).await.is_err() {
            return;
        }
    }
}

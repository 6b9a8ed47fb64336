//! Sending and verifying together.

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

/// Batches sent that the verifier has not noted yet.
const SENT_CAPACITY: usize = 1_024;

/// Sends the events of a model, and verifies that each is stored once.
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
    /// A run of `model`, not started yet. It looks for events that were sent every `verify_interval`.
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

    /// The figures so far.
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

    /// Sends until the events or the time of the configuration are over, or until `stop_sending`. Waits until all sent
    /// events are visible, or none has become visible for a minute, or until `stop`. Judges each event then, and returns the
    /// last figures. A run is run once.
    ///
    /// # Errors
    /// An error of the publisher or the store that no repetition can help; retryable errors are repeated.
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
        verifier.judge(self.sent.events()).await?;
        Ok(self.report())
    }
}

/// Passes all batches on to `follow`, and to `measure` the batches that it has time for.
async fn fan_out(mut received: mpsc::Receiver<Sent>, follow: mpsc::Sender<Sent>, measure: mpsc::Sender<Sent>) {
    while let Some(sent) = received.recv().await {
        let _ = measure.try_send(sent.clone());
        if follow.send(sent).await.is_err() {
            return;
        }
    }
}

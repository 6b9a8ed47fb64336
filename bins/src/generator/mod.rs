//! The load generator: its variables, its progress and its figures.

mod report;

use std::sync::Arc;
use std::time::Duration;

use netagg_core::BoxError;
use netagg_core::load::{EventModel, LoadConfig, LoadReport, LoadRun, StoredCopies, random_seed};
use netagg_core::ports::{Clock, EventPublisher, SystemClock};
use tokio::time::interval;

use crate::process::{Shutdown, Variables, output};

/// How often the figures are printed.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct GeneratorConfig {
    /// The number of users of the events.
    pub users: u64,
    /// The load to send.
    pub load: LoadConfig,
    /// How often the generator looks up the sent events in the database.
    pub verify_interval: Duration,
}

impl GeneratorConfig {
    /// Reads the variables `GENERATOR_*`.
    pub fn read(variables: &mut Variables) -> Self {
        variables.group("Load");
        let day = Duration::from_secs(86_400);
        let users = variables.number("GENERATOR_USER_COUNT", 1_000, 1..=100_000_000, "number of users with events");
        let rate = variables.number("GENERATOR_EVENTS_PER_SEC", 1_000, 1..=10_000_000, "events sent per second");
        let duration = variables.duration(
            "GENERATOR_DURATION",
            Duration::from_secs(60),
            Duration::ZERO..=365 * day,
            "how long the generator sends; 0: until it is stopped",
        );
        let batch_size =
            variables.number("GENERATOR_BATCH_SIZE", 100, 1..=10_000, "number of events in a batch for the broker");
        let workers =
            variables.number("GENERATOR_WORKERS", 4, 1..=256, "number of batches that are sent at the same time");
        let verify_interval = variables.duration(
            "GENERATOR_VERIFY_INTERVAL",
            Duration::from_secs(10),
            Duration::from_millis(100)..=day,
            "how often the generator looks up the sent events in the database",
        );
        let duplicate_rate =
            variables.share("GENERATOR_DUPLICATE_RATE", 0.01, "share of events that are sent twice, from 0 to 1");
        let invalid_rate = variables.share(
            "GENERATOR_INVALID_RATE",
            0.0,
            "share of messages that are invalid, per valid event, from 0 to 1",
        );
        let load = LoadConfig {
            events_per_sec: Some(rate),
            events: None,
            duration: Some(duration).filter(|duration| !duration.is_zero()),
            batch_size,
            workers,
            duplicate_rate,
            invalid_rate,
        };
        Self { users, load, verify_interval }
    }
}

/// Sends and verifies events, prints the figures every 5 s and at the end, and returns the last figures.
///
/// # Errors
/// Errors that a retry cannot fix. While the broker or the database is unavailable, the generator waits.
pub async fn run(
    config: GeneratorConfig,
    publisher: Arc<dyn EventPublisher>,
    store: Arc<dyn StoredCopies>,
    shutdown: &Shutdown,
) -> Result<LoadReport, BoxError> {
    let model = EventModel::new(random_seed(), config.users, SystemClock.now())?;
    tracing::info!(source_id = %model.source_id(), "sending");
    let progress = report::progress_bar(&config.load);
    let run = LoadRun::new(model, config.load, config.verify_interval);
    let stop_sending = shutdown.token().child_token();
    let show = async {
        let mut tick = interval(REPORT_INTERVAL);
        tick.tick().await;
        loop {
            tick.tick().await;
            let figures = run.report();
            progress.set_position(figures.events_sent);
            progress.suspend(|| report::print(&figures));
            if !output::is_wanted() {
                // The events that were sent are still verified, for the exit code.
                stop_sending.cancel();
            }
        }
    };
    let figures = tokio::select! {
        outcome = run.run(publisher, store, stop_sending.clone(), shutdown.token()) => outcome?,
        () = show => return Err("the output of the figures ended before the work".into()),
    };
    progress.finish_and_clear();
    report::print(&figures);
    Ok(figures)
}

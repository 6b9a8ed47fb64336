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

/// How a run is made.
#[derive(Clone, Debug)]
pub struct GeneratorConfig {
    /// How many users the events are of.
    pub users: u64,
    /// What is sent.
    pub load: LoadConfig,
    /// How often what was sent is looked for.
    pub verify_interval: Duration,
}

impl GeneratorConfig {
    /// Reads the variables `GENERATOR_*`.
    pub fn read(variables: &mut Variables) -> Self {
        let day = Duration::from_secs(86_400);
        let users = variables.number("GENERATOR_USER_COUNT", 1_000, 1..=100_000_000, "users the events are of");
        let rate = variables.number("GENERATOR_EVENTS_PER_SEC", 1_000, 1..=10_000_000, "events sent per second");
        let duration = variables.duration(
            "GENERATOR_DURATION",
            Duration::from_secs(60),
            Duration::ZERO..=365 * day,
            "how long events are sent; 0: until stopped",
        );
        let batch_size = variables.number("GENERATOR_BATCH_SIZE", 100, 1..=10_000, "events handed over at a time");
        let workers = variables.number("GENERATOR_WORKERS", 4, 1..=256, "batches on their way at a time");
        let verify_interval = variables.duration(
            "GENERATOR_VERIFY_INTERVAL",
            Duration::from_secs(10),
            Duration::from_millis(100)..=day,
            "how often sent events are looked up in the database",
        );
        let duplicate_rate = variables.share("GENERATOR_DUPLICATE_RATE", 0.01, "share of events sent twice");
        let invalid_rate = variables.share("GENERATOR_INVALID_RATE", 0.0, "invalid messages for each event");
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

/// Sends, verifies, prints the figures every 5 s and at the end, and returns the last ones.
///
/// # Errors
/// What no repetition can help. A broker or database that is away is waited for.
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
        () = show => return Err("the figures ended before the work".into()),
    };
    progress.finish_and_clear();
    report::print(&figures);
    Ok(figures)
}

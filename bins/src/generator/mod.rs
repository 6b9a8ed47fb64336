//! The load generator: sends realistic events and verifies that each is stored once.

mod load;
mod model;
mod report;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use netagg_core::BoxError;
use netagg_core::ports::{Clock, EventPublisher, SystemClock};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

pub use load::{LoadConfig, LoadStats, Sent, record, send};
pub use model::{Model, random_seed};
pub use report::Report;
pub use verify::{StoredCopies, VerifyStats};

use crate::{Shutdown, Variables, output};
use verify::Verifier;

/// How often the figures are printed.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Batches sent that the verifier has not noted yet.
const SENT_CAPACITY: usize = 1_024;

/// How a run is made.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
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
) -> Result<Report, BoxError> {
    let model = Arc::new(Model::new(random_seed(), config.users, SystemClock.now())?);
    tracing::info!(source_id = %model.source_id(), "sending");
    let load_stats = Arc::new(LoadStats::default());
    let verify_stats = Arc::new(VerifyStats::default());
    let verifier = Verifier { model: model.clone(), store, stats: verify_stats.clone() };
    let started = Instant::now();
    let report = |elapsed: Duration| Report::new(&load_stats, &verify_stats, elapsed);

    let (sent, received) = mpsc::channel::<Sent>(SENT_CAPACITY);
    let (to_follow, follow) = mpsc::channel(SENT_CAPACITY);
    let (to_measure, measure) = mpsc::channel(1);
    let no_more = shutdown.token().child_token();
    let sending = async {
        let outcome = send(model, config.load.clone(), publisher, load_stats.clone(), sent, no_more.clone()).await;
        outcome.map(|()| started.elapsed())
    };
    let work = async {
        tokio::try_join!(
            sending,
            async { fan_out(received, to_follow, to_measure).await },
            verifier.follow(follow, config.verify_interval, shutdown.token()),
            verifier.measure(measure, shutdown.token()),
        )
    };
    let progress = report::progress_bar(&config.load);
    let show = async {
        let mut tick = interval(REPORT_INTERVAL);
        tick.tick().await;
        loop {
            tick.tick().await;
            progress.set_position(load_stats.events());
            progress.suspend(|| report(started.elapsed()).print());
            if !output::is_wanted() {
                // The events that were sent are still verified, for the exit code.
                no_more.cancel();
            }
        }
    };
    let (sent_for, ..) = tokio::select! {
        outcome = work => outcome?,
        () = show => return Err("the figures ended before the work".into()),
    };
    progress.finish_and_clear();
    verifier.judge(load_stats.events()).await?;
    let report = report(sent_for);
    report.print();
    Ok(report)
}

/// Tells the follower everything, and the one that measures whatever it has time for.
async fn fan_out(
    mut received: mpsc::Receiver<Sent>,
    follow: mpsc::Sender<Sent>,
    measure: mpsc::Sender<Sent>,
) -> Result<(), BoxError> {
    while let Some(sent) = received.recv().await {
        let _ = measure.try_send(sent.clone());
        follow.send(sent).await?;
    }
    Ok(())
}

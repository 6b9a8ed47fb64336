//! `netagg demo`: the whole pipeline in one process, without any server.
//!
//! Events from a generator or a file pass through the ingestor and the aggregator, on in-memory adapters, to the API. At the
//! end, the demonstration verifies stored events and totals.

mod input;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use netagg_api::{ApiLimits, Server};
use netagg_core::load::{EventModel, LoadConfig, LoadError, MemoryPipeline, Published, random_seed};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::usage::{UsageConfig, UsageService};
use netagg_core::{ConsumerConfig, ProcessingMode};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{ApiAddresses, has_page};
use crate::input::Input;
use crate::process::{Shutdown, Variables, output};
use crate::progress::progress_bar;
use crate::run_program::run_command;
use crate::{Failure, protection, reserved_descriptors};

/// The number of users of the generated events.
const USERS: u64 = 1_000;
/// The shares of duplicates and of invalid messages. They show how the pipeline handles both.
const DUPLICATE_RATE: f64 = 0.01;
const INVALID_RATE: f64 = 0.001;
/// With `--serve`: the events per second, and the largest number of events, because all events are kept in memory.
const SERVE_RATE: u64 = 100;
const SERVE_EVENTS: u64 = 5_000_000;

/// The arguments of the demonstration.
#[derive(Clone, Debug, Args)]
pub(crate) struct Demo {
    /// Afterwards keep the API running on API_HTTP_PORT and API_GRPC_PORT, and keep sending events
    #[arg(long)]
    serve: bool,
    /// The number of events to generate
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    events: u64,
    /// Read events from a file with one JSON object per line instead, or from stdin (-)
    #[arg(long, value_name = "FILE", conflicts_with = "events")]
    input: Option<Input>,
    /// separate: an aggregator counts the events; combined: the ingestor stores and counts them in one transaction
    #[arg(long, default_value_t = ProcessingMode::Separate)]
    mode: ProcessingMode,
}

impl Demo {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| {
            // Without --serve, no port is opened.
            let api = variables.unless(!self.serve, |variables| {
                let addresses = ApiAddresses::read(variables);
                let has_page = has_page(variables);
                protection::open_only(variables, &addresses);
                ApiConfig { addresses, has_page }
            });
            self.serve.then_some(api)
        };
        run_command(configure, async |api, shutdown| {
            let passed = self.demonstrate(api, shutdown).await?;
            Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }

    /// Runs the demonstration with events from a file or from the generator. Afterwards keeps the API running as `api` says.
    /// Returns whether the verification passed.
    async fn demonstrate(&self, api: Option<ApiConfig>, shutdown: Shutdown) -> Result<bool, Failure> {
        let is_generated = self.input.is_none();
        let partitions = if is_generated { 8 } else { 1 };
        let pipeline = Arc::new(MemoryPipeline::in_mode(self.mode, partitions, consumer(is_generated)));
        let ended = start(&pipeline, &shutdown);
        let usage = Arc::new(
            UsageService::new(pipeline.events.clone(), pipeline.totals.clone(), UsageConfig::default())
                .with_cache(pipeline.cache.clone()),
        );
        let api = match api {
            Some(config) => Some(Api::bind(config, reserved_descriptors::demo_limits()?).await?),
            None => None,
        };

        let started = Instant::now();
        let (published, left_out) = match &self.input {
            None => (generate(&pipeline, self.events, &shutdown).await?, 0),
            Some(input) => input::publish(input, &pipeline.log).await?,
        };
        if shutdown.token().is_cancelled() {
            return Ok(true);
        }
        tokio::select! {
            () = pipeline.processed(published.records) => {}
            () = ended.cancelled() => {
                return Err(Failure::Failed("a service ended before it had processed all messages".into()));
            }
        }
        let elapsed = started.elapsed();
        let mismatches = pipeline.verify(&published).await?;
        report::print(&pipeline, &usage, &published, left_out, &mismatches, elapsed).await?;
        if let Some(api) = api {
            api.serve(usage, &pipeline, &ended, &shutdown).await?;
        } else {
            report::print_next(is_generated);
        }
        Ok(mismatches.is_empty())
    }
}

/// The configuration of both consumers. Events of a file may be in conflict. With one partition and one batch at a time, both
/// services process them in the same order and keep the same copy.
fn consumer(is_generated: bool) -> ConsumerConfig {
    let mut config = ConsumerConfig::default();
    config.batches_in_flight = if is_generated { 2 } else { 1 };
    config.batch_timeout = Duration::from_millis(50);
    config.commit_interval = Duration::from_millis(20);
    config
}

/// Runs both services in the background. The token is cancelled when a service ends.
fn start(pipeline: &Arc<MemoryPipeline>, shutdown: &Shutdown) -> CancellationToken {
    let ended = CancellationToken::new();
    let (pipeline, stop, on_end) = (pipeline.clone(), shutdown.token(), ended.clone());
    shutdown.spawn("pipeline", async move {
        // The guard also runs after a panic.
        let _ended = on_end.drop_guard();
        if let Err(error) = pipeline.run(stop).await {
            tracing::error!(%error, "the pipeline ended");
        }
    });
    ended
}

/// Sends `count` generated events, with duplicates and invalid messages, as fast as the services accept them.
async fn generate(pipeline: &MemoryPipeline, count: u64, shutdown: &Shutdown) -> Result<Published, Failure> {
    let load = LoadConfig { events_per_sec: None, events: Some(count), batch_size: 500, workers: 2, ..load() };
    let bar = progress_bar(Some(count), "{bar:40} {human_pos}/{human_len} events, {per_sec}");
    let published = pipeline.send(&model()?, load, &shutdown.token(), |sent| bar.set_position(sent)).await?;
    bar.finish_and_clear();
    Ok(published)
}

fn model() -> Result<Arc<EventModel>, LoadError> {
    Ok(Arc::new(EventModel::new(random_seed(), USERS, SystemClock.now())?))
}

/// A load with the shares of duplicates and of invalid messages.
fn load() -> LoadConfig {
    LoadConfig { duration: None, duplicate_rate: DUPLICATE_RATE, invalid_rate: INVALID_RATE, ..LoadConfig::default() }
}

/// The configuration of the API.
#[derive(Clone, Copy, Debug)]
struct ApiConfig {
    addresses: ApiAddresses,
    has_page: bool,
}

/// The ports of the API. They are bound before the work, so a port in use is reported at once.
#[derive(Debug)]
struct Api {
    config: ApiConfig,
    http: TcpListener,
    grpc: TcpListener,
    limits: ApiLimits,
}

impl Api {
    async fn bind(config: ApiConfig, limits: ApiLimits) -> Result<Self, Failure> {
        let (http, grpc) = config.addresses.listen().await?;
        Ok(Self { config, http, grpc, limits })
    }

    /// Serves the API until a stop signal arrives, and keeps sending events.
    async fn serve(
        self,
        usage: Arc<UsageService>,
        pipeline: &MemoryPipeline,
        ended: &CancellationToken,
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        let ApiConfig { addresses, has_page } = self.config;
        report::print_serving(&addresses, has_page);
        if !output::is_wanted() {
            return Ok(());
        }
        let load = LoadConfig {
            events_per_sec: Some(SERVE_RATE),
            events: Some(SERVE_EVENTS),
            batch_size: 10,
            workers: 1,
            ..load()
        };
        let model = model()?;
        let flow = async {
            pipeline.send(&model, load, &shutdown.token(), |_| {}).await?;
            if !shutdown.token().is_cancelled() {
                tracing::warn!(
                    "no more events are sent: the demonstration keeps all events in memory and has reached its limit"
                );
            }
            Ok::<(), Failure>(())
        };
        let server = Server::new(usage).with_limits(self.limits);
        let server = if has_page { server.with_overview_page() } else { server };
        let http = async {
            server.clone().serve_http(self.http, shutdown.token()).await;
            Ok(())
        };
        let grpc = async { Ok(server.clone().serve_grpc(self.grpc, shutdown.token()).await?) };
        let pipeline_runs = async {
            ended.cancelled().await;
            let is_stopping = shutdown.token().is_cancelled();
            if is_stopping { Ok(()) } else { Err(Failure::Failed("a service of the pipeline has ended".into())) }
        };
        tokio::try_join!(flow, http, grpc, pipeline_runs)?;
        Ok(())
    }
}

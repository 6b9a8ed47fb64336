//! The whole pipeline in one process, with nothing installed: generated or given events, through the ingestor and the
//! aggregator on the in-memory adapters, to the API, and a verification that everything came out right.

mod input;
mod outcome;
mod report;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use netagg_api::{ApiLimits, Server};
use netagg_core::load::{EventModel, LoadConfig, LoadStats, StoredCopies, random_seed, send};
use netagg_core::memory::{MemoryAggregateStore, MemoryCache, MemoryDeadLetters, MemoryEventStore, MemoryLog};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::usage::{UsageConfig, UsageService};
use netagg_core::{
    Aggregator, BoxError, ConsumerConfig, ConsumerStats, Contribution, Day, EventType, Ingestor, StatsSnapshot, Totals,
};
use netagg_program::descriptors::OWN;
use netagg_program::{Shutdown, Variables, output};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::ApiAddresses;
use crate::input::Input;
use crate::program::run_command;
use crate::progress::progress_bar;
use crate::{Failure, descriptors, protection};
use outcome::{Published, Verification};

/// Records the log holds before publishers wait.
const LOG_CAPACITY: usize = 100_000;
/// Users that generated events are of.
const USERS: u64 = 1_000;
/// Shares that show what happens to duplicates and to what is no event.
const DUPLICATE_RATE: f64 = 0.01;
const INVALID_RATE: f64 = 0.001;
/// While serving: how fast events go on, and how many at most, since all are kept in memory.
const SERVE_RATE: u64 = 100;
const SERVE_EVENTS: u64 = 5_000_000;

/// What to run.
#[derive(Clone, Debug, Args)]
pub(crate) struct Demo {
    /// Keep the API up on API_HTTP_PORT and API_GRPC_PORT afterwards, with events flowing
    #[arg(long)]
    serve: bool,
    /// How many events to generate
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    events: u64,
    /// Take events from a file of one JSON object a line instead, or from stdin (-)
    #[arg(long, value_name = "FILE", conflicts_with = "events")]
    input: Option<Input>,
}

impl Demo {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| {
            // Without --serve nothing listens.
            let addresses = variables.unless(!self.serve, |variables| {
                let addresses = ApiAddresses::read(variables);
                protection::open_only(variables, &addresses);
                addresses
            });
            self.serve.then_some(addresses)
        };
        run_command(configure, async |addresses, shutdown| {
            let passed = demonstrate(self.events, self.input.as_ref(), addresses, shutdown).await?;
            Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

/// Runs the demonstration with the events of `input`, or with `count` generated events. Keeps the API up at `addresses`
/// afterwards. Whether its verification passed.
async fn demonstrate(
    count: u64,
    input: Option<&Input>,
    addresses: Option<ApiAddresses>,
    shutdown: Shutdown,
) -> Result<bool, Failure> {
    let is_generated = input.is_none();
    let pipeline = Pipeline::start(is_generated, &shutdown);
    let usage = Arc::new(
        UsageService::new(pipeline.events.clone(), pipeline.totals.clone(), UsageConfig::default())
            .with_cache(pipeline.cache.clone()),
    );
    let api = match addresses {
        Some(addresses) => Some(Api::bind(addresses, descriptors::api_limits(&[OWN])?).await?),
        None => None,
    };

    let started = Instant::now();
    let published = match input {
        None => pipeline.generate(count, &shutdown).await?,
        Some(input) => input::publish(input, &pipeline.log).await?,
    };
    if shutdown.token().is_cancelled() {
        return Ok(true);
    }
    pipeline.drained(published.records).await?;
    let elapsed = started.elapsed();
    let verification = pipeline.verify(&published).await?;
    let (days, ingested) = (pipeline.events.sum_by_day(), pipeline.ingested.snapshot());
    report::print(&days, ingested, &usage, &published, &verification, elapsed).await?;
    if let Some(api) = api {
        api.serve(usage, &pipeline, &shutdown).await?;
    } else {
        report::print_next(is_generated);
    }
    Ok(verification.problems.is_empty())
}

/// The services, running on memory.
#[derive(Debug)]
struct Pipeline {
    log: MemoryLog,
    events: Arc<MemoryEventStore>,
    totals: Arc<MemoryAggregateStore>,
    dead_letters: Arc<MemoryDeadLetters>,
    cache: Arc<MemoryCache>,
    ingested: Arc<ConsumerStats>,
    aggregated: Arc<ConsumerStats>,
    /// Cancelled when one of the services ends.
    ended: CancellationToken,
}

impl Pipeline {
    fn start(is_generated: bool, shutdown: &Shutdown) -> Self {
        // Given events may be in conflict: one partition and one batch at a time make both services meet them in one
        // order, so that both keep the same copy.
        let partitions = if is_generated { 8 } else { 1 };
        let config = ConsumerConfig {
            batches_in_flight: if is_generated { 2 } else { 1 },
            batch_timeout: Duration::from_millis(50),
            commit_interval: Duration::from_millis(20),
            ..ConsumerConfig::default()
        };
        let log = MemoryLog::with_capacity("events.telecom", partitions, LOG_CAPACITY);
        let events = Arc::new(MemoryEventStore::new());
        let totals = Arc::new(MemoryAggregateStore::new());
        let dead_letters = Arc::new(MemoryDeadLetters::new());
        let cache = Arc::new(MemoryCache::default());
        let ingestor = Ingestor::new(events.clone(), dead_letters.clone()).with_config(config.clone());
        let aggregator = Aggregator::new(totals.clone()).with_cache(cache.clone()).with_config(config);
        let (ingested, aggregated) = (ingestor.stats(), aggregator.stats());
        let ended = CancellationToken::new();

        let (mut ingestor_source, mut aggregator_source) =
            (log.source("ingestor-group"), log.source("aggregator-group"));
        let (stop, on_end) = (shutdown.token(), ended.clone());
        shutdown.spawn("pipeline", async move {
            // However it ends, by a panic, too.
            let _ended = on_end.drop_guard();
            let outcome = tokio::try_join!(
                ingestor.run(&mut ingestor_source, stop.clone()),
                aggregator.run(&mut aggregator_source, stop),
            );
            if let Err(error) = outcome {
                tracing::error!(%error, "the pipeline ended");
            }
        });
        Self { log, events, totals, dead_letters, cache, ingested, aggregated, ended }
    }

    /// Sends `count` generated events, with duplicates and invalid messages, as fast as they are taken.
    async fn generate(&self, count: u64, shutdown: &Shutdown) -> Result<Published, Failure> {
        let model = Arc::new(EventModel::new(random_seed(), USERS, SystemClock.now())?);
        let stats = Arc::new(LoadStats::default());
        let load = LoadConfig {
            events_per_sec: None,
            events: Some(count),
            duration: None,
            batch_size: 500,
            workers: 2,
            duplicate_rate: DUPLICATE_RATE,
            invalid_rate: INVALID_RATE,
        };
        let bar = progress_bar(Some(count), "{bar:40} {human_pos}/{human_len} events, {per_sec}");
        self.send(&model, load, &stats, shutdown, |sent| bar.set_position(sent)).await?;
        bar.finish_and_clear();
        let (events, duplicates, invalid) = (stats.events(), stats.duplicates(), stats.invalid());
        Ok(Published {
            records: events + duplicates + invalid,
            events,
            duplicates,
            invalid,
            left_out: 0,
            model: Some(model),
        })
    }

    async fn send(
        &self,
        model: &Arc<EventModel>,
        load: LoadConfig,
        stats: &Arc<LoadStats>,
        shutdown: &Shutdown,
        progress: impl Fn(u64),
    ) -> Result<(), BoxError> {
        let (sent, mut received) = mpsc::channel(16);
        let log = Arc::new(self.log.clone());
        let sending = send(model.clone(), load, log, stats.clone(), sent, shutdown.token());
        let follow = async {
            while received.recv().await.is_some() {
                progress(stats.events());
            }
            Ok(())
        };
        tokio::try_join!(sending, follow)?;
        Ok(())
    }

    /// Waits until both services are done with `records` records.
    async fn drained(&self, records: u64) -> Result<(), BoxError> {
        let done = |stats: StatsSnapshot| stats.new + stats.duplicates + stats.conflicts + stats.invalid;
        while done(self.ingested.snapshot()) < records || done(self.aggregated.snapshot()) < records {
            if self.ended.is_cancelled() {
                return Err("a service ended before everything was done".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Compares what came out with what was put in.
    async fn verify(&self, published: &Published) -> Result<Verification, BoxError> {
        let mut problems = Vec::new();
        let stored = self.events.len() as u64;
        if stored != published.events {
            problems.push(format!("{} events were sent and {stored} are stored", published.events));
        }
        let ingested = self.ingested.snapshot();
        if ingested.duplicates + ingested.conflicts != published.duplicates {
            let found = ingested.duplicates + ingested.conflicts;
            problems.push(format!("{} duplicates were sent and {found} found", published.duplicates));
        }
        if self.dead_letters.letters().len() as u64 != published.invalid {
            problems.push(format!("{} messages were invalid, not as many are dead letters", published.invalid));
        }
        let by_group = self.events.sum_by_day();
        if by_group != self.totals.days() {
            problems.push("the totals are not the sums over the stored events".to_owned());
        }
        if let Some(model) = &published.model {
            let (wrong, expected) = self.compare_with(model, published.events).await?;
            if wrong > 0 {
                problems.push(format!("{wrong} events are not stored exactly once"));
            }
            if expected != by_group {
                problems.push("the totals are not the sums over the events sent".to_owned());
            }
        }
        Ok(Verification { problems })
    }

    /// How many of the run's events are not stored exactly once, and the totals they should give.
    async fn compare_with(
        &self,
        model: &EventModel,
        events: u64,
    ) -> Result<(u64, BTreeMap<(Day, EventType), Totals>), BoxError> {
        let mut expected = BTreeMap::<_, Totals>::new();
        let mut wrong = 0;
        for number in 0..events {
            let event = [model.event(number)?];
            let contribution = Contribution::of(&event[0]);
            *expected.entry((contribution.identity.day, contribution.event_type)).or_default() += &contribution;
            wrong += self.events.count_copies(&event).await?.into_iter().filter(|count| *count != 1).count() as u64;
        }
        Ok((wrong, expected))
    }
}

/// The API's ports, bound before the work so that a taken one is told at once.
#[derive(Debug)]
struct Api {
    addresses: ApiAddresses,
    http: TcpListener,
    grpc: TcpListener,
    limits: ApiLimits,
}

impl Api {
    async fn bind(addresses: ApiAddresses, limits: ApiLimits) -> Result<Self, Failure> {
        let (http, grpc) = addresses.listen().await?;
        Ok(Self { addresses, http, grpc, limits })
    }

    /// Answers until the program is told to stop, while events go on.
    async fn serve(self, usage: Arc<UsageService>, pipeline: &Pipeline, shutdown: &Shutdown) -> Result<(), Failure> {
        report::print_serving(&self.addresses);
        if !output::is_wanted() {
            return Ok(());
        }
        let load = LoadConfig {
            events_per_sec: Some(SERVE_RATE),
            events: Some(SERVE_EVENTS),
            duration: None,
            batch_size: 10,
            workers: 1,
            duplicate_rate: DUPLICATE_RATE,
            invalid_rate: INVALID_RATE,
        };
        let model = Arc::new(EventModel::new(random_seed(), USERS, SystemClock.now())?);
        let stats = Arc::new(LoadStats::default());
        let flow = async {
            pipeline.send(&model, load, &stats, shutdown, |_| {}).await?;
            if !shutdown.token().is_cancelled() {
                tracing::warn!("no more events are sent: all are kept in memory, and these are enough");
            }
            Ok::<(), Failure>(())
        };
        let server = Server::new(usage).with_limits(self.limits);
        let http = async {
            server.clone().serve_http(self.http, shutdown.token()).await;
            Ok(())
        };
        let grpc = async { Ok(server.clone().serve_grpc(self.grpc, shutdown.token()).await?) };
        let pipeline_runs = async {
            pipeline.ended.cancelled().await;
            let is_asked = shutdown.token().is_cancelled();
            if is_asked { Ok(()) } else { Err(Failure::Failed("a service of the pipeline has ended".into())) }
        };
        tokio::try_join!(flow, http, grpc, pipeline_runs)?;
        Ok(())
    }
}

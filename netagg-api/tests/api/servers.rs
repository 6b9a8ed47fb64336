//! Both servers on free ports, over stores in memory, with a clock that stands still.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use netagg_api::{ApiLimits, Protection, Server};
use netagg_core::memory::{MemoryAggregateStore, MemoryCache, MemoryEventStore};
use netagg_core::ports::{
    AggregateStore, Clock, EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelineQuery, TotalsQuery, TotalsReader,
};
use netagg_core::usage::{UsageConfig, UsageService};
use netagg_core::{AggregateRow, Batch, BatchOutcome, Contribution, Error, Event, IdentifiedEvent, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The time of the clock in every test.
pub(crate) const NOW: &str = "2025-10-31T12:00:00Z";
/// The timeout for events that must happen, and normally happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        NOW.parse().expect("valid")
    }
}

/// The default limits, modified by `change`.
pub(crate) fn limits(change: impl FnOnce(&mut ApiLimits)) -> ApiLimits {
    let mut limits = ApiLimits::default();
    change(&mut limits);
    limits
}

/// Two running servers and their stores.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    events: Arc<MemoryEventStore>,
    aggregates: Arc<MemoryAggregateStore>,
    reads: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Servers {
    /// Servers without any events.
    pub(crate) async fn start() -> Self {
        // The stop timeout is longer than every test: a test fails if its shutdown needs the timeout.
        Self::start_with(limits(|limits| limits.stop_timeout = 100 * SOON)).await
    }

    pub(crate) async fn start_with(limits: ApiLimits) -> Self {
        let (events, aggregates) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
        Self::start_over(events.clone(), aggregates.clone(), events, aggregates, Protection::default(), limits).await
    }

    /// Servers with `protection`.
    pub(crate) async fn start_protected(protection: Protection) -> Self {
        let (events, aggregates) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
        let limits = ApiLimits::default();
        Self::start_over(events.clone(), aggregates.clone(), events, aggregates, protection, limits).await
    }

    /// Servers over a store that fails as `failure` says.
    pub(crate) async fn start_broken(failure: StoreFailure, limits: ApiLimits) -> Self {
        let (events, aggregates) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
        let broken = || Arc::new(BrokenStore(failure));
        Self::start_over(broken(), broken(), events, aggregates, Protection::default(), limits).await
    }

    /// Servers over a store that answers `reads` reads of a timeline, and then fails.
    pub(crate) async fn start_failing_after(reads: usize, limits: ApiLimits) -> Self {
        let (events, aggregates) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
        let reads = Arc::new(AtomicUsize::new(reads));
        let failing = FailingStore { events: events.clone(), reads: reads.clone() };
        let protection = Protection::default();
        let servers =
            Self::start_over(Arc::new(failing), aggregates.clone(), events, aggregates, protection, limits).await;
        Self { reads, ..servers }
    }

    /// The number of reads that the store still answers.
    pub(crate) fn reads_left(&self) -> usize {
        self.reads.load(SeqCst)
    }

    /// Makes the store answer `reads` more reads.
    pub(crate) fn allow_reads(&self, reads: usize) {
        self.reads.store(reads, SeqCst);
    }

    async fn start_over(
        event_store: Arc<dyn EventStore>,
        aggregate_store: Arc<dyn AggregateStore>,
        events: Arc<MemoryEventStore>,
        aggregates: Arc<MemoryAggregateStore>,
        protection: Protection,
        limits: ApiLimits,
    ) -> Self {
        let service = UsageService::new(event_store, aggregate_store, UsageConfig::default())
            .with_cache(Arc::new(MemoryCache::default()))
            .with_clock(Arc::new(StoppedClock));
        let service = Arc::new(service);
        let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (http, grpc) = (listen().await, listen().await);
        let addresses = (http.local_addr().expect("bound"), grpc.local_addr().expect("bound"));
        let shutdown = CancellationToken::new();
        let serving = {
            let server = Server::new(service).with_protection(protection).with_limits(limits);
            let shutdown = shutdown.clone();
            async move {
                let (http, grpc) =
                    tokio::join!(server.clone().serve_http(http, shutdown.clone()), server.serve_grpc(grpc, shutdown),);
                let () = http;
                grpc.expect("gRPC stops without an error");
            }
        };
        let running = tokio::spawn(serving);
        Self { http: addresses.0, grpc: addresses.1, events, aggregates, reads: Arc::default(), shutdown, running }
    }

    /// Stores and counts events, given as JSON.
    pub(crate) async fn add(&self, events: impl IntoIterator<Item = serde_json::Value>) {
        let events: Vec<_> =
            events.into_iter().map(|json| Event::decode(json.to_string().as_bytes()).expect("valid")).collect();
        self.add_events(events).await;
    }

    pub(crate) async fn add_events(&self, events: Vec<Event>) {
        let contributions = events.iter().map(Contribution::of).collect();
        self.aggregates.add(&Batch::new(contributions)).await.expect("counted");
        let identified = events.into_iter().map(IdentifiedEvent::from).collect();
        self.events.store(&Batch::new(identified)).await.expect("stored");
    }

    /// Begins the shutdown of both servers.
    pub(crate) fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops both servers and waits until they have stopped.
    pub(crate) async fn stopped(self) {
        self.stop();
        tokio::time::timeout(SOON, self.running).await.expect("the servers stop").expect("the servers do not panic");
    }
}

/// How a broken store fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StoreFailure {
    Unavailable,
    Internal,
    NoAnswer,
}

/// A text in errors of the store that no client may see.
pub(crate) const SECRET: &str = "SELECT password FROM /var/lib/postgres";

#[derive(Debug)]
struct BrokenStore(StoreFailure);

impl BrokenStore {
    async fn fail<T>(&self) -> Result<T, Error> {
        match self.0 {
            StoreFailure::Unavailable => Err(Error::unavailable("postgres", SECRET)),
            StoreFailure::Internal => Err(Error::internal("postgres", SECRET)),
            StoreFailure::NoAnswer => std::future::pending().await,
        }
    }
}

#[async_trait]
impl EventStore for BrokenStore {
    async fn store(&self, _: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        self.fail().await
    }

    async fn timeline(&self, _: &TimelineQuery) -> Result<Vec<Event>, Error> {
        self.fail().await
    }

    async fn count(&self, _: &TimelineFilter) -> Result<u64, Error> {
        self.fail().await
    }

    async fn sums(&self, _: &SumsQuery) -> Result<Vec<PeriodSums>, Error> {
        self.fail().await
    }
}

/// A store that answers a number of reads, and then fails.
#[derive(Debug)]
struct FailingStore {
    events: Arc<MemoryEventStore>,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl EventStore for FailingStore {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        self.events.store(batch).await
    }

    async fn timeline(&self, query: &TimelineQuery) -> Result<Vec<Event>, Error> {
        match self.reads.fetch_update(SeqCst, SeqCst, |reads| reads.checked_sub(1)) {
            Ok(_) => self.events.timeline(query).await,
            Err(_) => Err(Error::unavailable("postgres", SECRET)),
        }
    }

    async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error> {
        self.events.count(filter).await
    }

    async fn sums(&self, query: &SumsQuery) -> Result<Vec<PeriodSums>, Error> {
        self.events.sums(query).await
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        if self.reads.load(SeqCst) > 0 { Ok(None) } else { Err(Error::unavailable("postgres", SECRET)) }
    }
}

#[async_trait]
impl AggregateStore for BrokenStore {
    async fn add(&self, _: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        self.fail().await
    }
}

#[async_trait]
impl TotalsReader for BrokenStore {
    async fn totals(&self, _: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        self.fail().await
    }
}

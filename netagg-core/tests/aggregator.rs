//! Tests the services that count, and their cache, through the public interface.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::{HOUR, append, json};
use netagg_core::memory::{MemoryAggregateStore, MemoryCache, MemoryCombinedStore, MemoryDeadLetters, MemoryLog};
use netagg_core::ports::{Cache, CacheKey, CacheTicket, Lookup};
use netagg_core::{Aggregator, Error, EventConsumer, Ingestor, Month};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A cache that a test can make unavailable, hanging, or permanently broken.
#[derive(Debug, Default)]
struct FaultyCache {
    inner: MemoryCache,
    is_unavailable: AtomicBool,
    hangs: AtomicBool,
    is_broken: AtomicBool,
    attempts: AtomicUsize,
    /// Signals each successful invalidation.
    invalidated: Notify,
}

impl FaultyCache {
    async fn invalidate_with(&self, effect: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        self.attempts.fetch_add(1, SeqCst);
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_unavailable.load(SeqCst) {
            return Err(Error::unavailable("cache", "down"));
        }
        if self.is_broken.load(SeqCst) {
            return Err(Error::internal("cache", "broken"));
        }
        effect.await?;
        self.invalidated.notify_one();
        Ok(())
    }

    /// Whether a response of this month is still cached.
    async fn has(&self, month: &str) -> bool {
        matches!(self.inner.lookup(&key(month)).await, Ok(Lookup::Hit(_)))
    }

    /// Caches a response of this month.
    async fn fill_month(&self, month: &str) {
        if let Ok(Lookup::Miss(ticket)) = self.inner.lookup(&key(month)).await {
            self.inner.fill(ticket, Bytes::from_static(b"response"), 100 * HOUR).await.expect("filled");
        }
    }
}

#[async_trait]
impl Cache for FaultyCache {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        self.inner.lookup(key).await
    }

    async fn fill(&self, ticket: CacheTicket, response: Bytes, ttl: Duration) -> Result<(), Error> {
        self.inner.fill(ticket, response, ttl).await
    }

    async fn invalidate(&self, months: &[Month]) -> Result<(), Error> {
        self.invalidate_with(self.inner.invalidate(months)).await
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.invalidate_with(self.inner.invalidate_all()).await
    }
}

fn key(month: &str) -> CacheKey {
    CacheKey { name: month.to_owned(), months: vec![month.parse().expect("a month")] }
}

/// A running service that counts events from an open log.
struct Fixture {
    log: MemoryLog,
    store: Arc<MemoryAggregateStore>,
    cache: Arc<FaultyCache>,
    shutdown: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
}

impl Fixture {
    /// A fixture with an aggregator.
    fn new(cache: FaultyCache) -> Self {
        Self::with(cache, |totals, cache| Box::new(Aggregator::new(totals).with_cache(cache)))
    }

    /// A fixture with an ingestor that also counts.
    fn combined(cache: FaultyCache) -> Self {
        Self::with(cache, |totals, cache| {
            let store = Arc::new(MemoryCombinedStore::of(Arc::default(), totals));
            Box::new(Ingestor::combined(store, Arc::new(MemoryDeadLetters::new())).with_cache(cache))
        })
    }

    fn with(
        cache: FaultyCache,
        service: impl FnOnce(Arc<MemoryAggregateStore>, Arc<FaultyCache>) -> Box<dyn EventConsumer>,
    ) -> Self {
        let (log, store, cache) = (MemoryLog::new("events", 1), Arc::new(MemoryAggregateStore::new()), Arc::new(cache));
        let shutdown = CancellationToken::new();
        let service = service(store.clone(), cache.clone());
        let (mut source, stop) = (log.source("group"), shutdown.clone());
        let run = tokio::spawn(async move { service.run(&mut source, stop).await });
        Self { log, store, cache, shutdown, run }
    }

    /// Publishes an event of `month` and waits until its position is committed.
    async fn count(&self, id: u128, month: &str) {
        append(&self.log, json(id).replace("2025-10", month));
        let next = self.store.days().values().map(|totals| totals.count_events).sum::<u64>() + 1;
        let committed = async {
            while self.log.committed("group").first().is_none_or(|position| position.next_offset < next as i64) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), committed).await.expect("a commit that does not wait for the cache");
    }

    /// Stops the service, and returns how long the stop took.
    async fn stop(self) -> Duration {
        self.shutdown.cancel();
        let start = Instant::now();
        self.run.await.expect("no panic").expect("a stop");
        start.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_invalidates_only_its_month_at_once() {
    for fixture in [Fixture::new(FaultyCache::default()), Fixture::combined(FaultyCache::default())] {
        fixture.cache.invalidated.notified().await; // all months, at the start
        for month in ["2025-09", "2025-10"] {
            fixture.cache.fill_month(month).await;
        }
        fixture.count(1, "2025-10").await;
        assert!(!fixture.cache.has("2025-10").await);
        assert!(fixture.cache.has("2025-09").await);
        // A duplicate invalidates no month.
        fixture.cache.fill_month("2025-10").await;
        append(&fixture.log, json(1));
        fixture.count(2, "2025-09").await;
        assert!(fixture.cache.has("2025-10").await);
    }
}

#[tokio::test(start_paused = true)]
async fn all_months_are_invalidated_at_the_start() {
    let cache = FaultyCache::default();
    cache.fill_month("2025-01").await;
    let fixture = Fixture::new(cache);
    fixture.cache.invalidated.notified().await;
    assert!(!fixture.cache.has("2025-01").await);
}

#[tokio::test(start_paused = true)]
async fn changed_months_are_invalidated_when_the_cache_is_available_again() {
    let fixture = Fixture::new(FaultyCache::default());
    fixture.cache.invalidated.notified().await;
    let months = ["2025-08", "2025-09", "2025-10"];
    for month in months {
        fixture.cache.fill_month(month).await;
    }
    fixture.cache.is_unavailable.store(true, SeqCst);
    for (id, month) in months.iter().enumerate() {
        fixture.count(id as u128, month).await;
    }
    sleep(HOUR).await;
    fixture.cache.is_unavailable.store(false, SeqCst);
    let available_since = Instant::now();
    fixture.cache.invalidated.notified().await;
    let elapsed = available_since.elapsed();
    assert!(elapsed <= Duration::from_secs(1), "invalidated after {elapsed:?}");
    for month in months {
        assert!(!fixture.cache.has(month).await, "{month}");
    }
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_hangs_slows_neither_the_consumer_nor_a_stop_by_more_than_a_second() {
    let fixture = Fixture::new(FaultyCache { hangs: true.into(), ..FaultyCache::default() });
    for id in 0..20 {
        fixture.count(id, "2025-10").await;
    }
    let stop = timeout(HOUR, fixture.stop()).await;
    assert!(stop.is_ok_and(|elapsed| elapsed <= Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_permanently_broken_cache_is_called_once_per_change() {
    let fixture = Fixture::new(FaultyCache::default());
    fixture.cache.invalidated.notified().await;
    fixture.cache.is_broken.store(true, SeqCst);
    let before = fixture.cache.attempts.load(SeqCst);
    for id in 1..=3 {
        fixture.count(id, "2025-10").await;
        sleep(HOUR).await;
        assert_eq!(fixture.cache.attempts.load(SeqCst), before + id as usize);
    }
    // The cache works again. The next change also invalidates the earlier months.
    fixture.cache.fill_month("2025-10").await;
    fixture.cache.is_broken.store(false, SeqCst);
    fixture.count(4, "2025-09").await;
    assert!(!fixture.cache.has("2025-10").await);
    fixture.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_changes_are_invalidated_before_the_run_ends() {
    let fixture = Fixture::new(FaultyCache::default());
    fixture.cache.invalidated.notified().await;
    fixture.cache.fill_month("2025-10").await;
    append(&fixture.log, json(1));
    fixture.log.close();
    fixture.run.await.expect("no panic").expect("the end");
    assert!(!fixture.cache.has("2025-10").await);
}

#[tokio::test]
async fn invalid_records_are_skipped_and_duplicates_count_once() {
    let values = ["".to_owned(), json(1), "[]".to_owned(), json(1), json(1).replace("60", "61"), json(2)];
    let log = common::log_of(values);
    let store = Arc::new(MemoryAggregateStore::new());
    let aggregator = Aggregator::new(store.clone());
    aggregator.run(&mut log.source("group"), CancellationToken::new()).await.expect("the end");
    let totals: Vec<_> = store.days().into_values().collect();
    assert_eq!(totals.len(), 1);
    assert_eq!((totals[0].count_events, totals[0].sum_duration, totals[0].sum_bytes_up), (2, 120, 3));
    let stats = aggregator.stats().snapshot();
    assert_eq!((stats.new, stats.duplicates, stats.conflicts, stats.invalid), (2, 1, 1, 2));
    assert_eq!(log.committed("group")[0].next_offset, 6);
}

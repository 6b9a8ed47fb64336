//! The services that count, and their cache, through the public interface.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

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

/// A cache that is away, hangs, or fails for good when the test says so.
#[derive(Debug, Default)]
struct Moody {
    inner: MemoryCache,
    is_away: AtomicBool,
    hangs: AtomicBool,
    is_broken: AtomicBool,
    attempts: AtomicUsize,
    told: Notify,
}

impl Moody {
    async fn tell(&self, effect: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        self.attempts.fetch_add(1, SeqCst);
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_away.load(SeqCst) {
            return Err(Error::unavailable("cache", "away"));
        }
        if self.is_broken.load(SeqCst) {
            return Err(Error::internal("cache", "broken"));
        }
        effect.await?;
        self.told.notify_one();
        Ok(())
    }

    /// Whether an answer of this month is still kept.
    async fn keeps(&self, month: &str) -> bool {
        matches!(self.inner.lookup(&key(month)).await, Ok(Lookup::Hit(_)))
    }

    async fn fill(&self, month: &str) {
        if let Ok(Lookup::Miss(ticket)) = self.inner.lookup(&key(month)).await {
            self.inner.fill(ticket, Bytes::from_static(b"answer"), 100 * HOUR).await.expect("filled");
        }
    }
}

#[async_trait]
impl Cache for Moody {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        self.inner.lookup(key).await
    }

    async fn fill(&self, ticket: CacheTicket, answer: Bytes, ttl: Duration) -> Result<(), Error> {
        self.inner.fill(ticket, answer, ttl).await
    }

    async fn invalidate(&self, months: &[Month]) -> Result<(), Error> {
        self.tell(self.inner.invalidate(months)).await
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.tell(self.inner.invalidate_all()).await
    }
}

fn key(month: &str) -> CacheKey {
    CacheKey { name: month.to_owned(), months: vec![month.parse().expect("a month")] }
}

/// A service that counts, at work on an open log.
struct Stage {
    log: MemoryLog,
    store: Arc<MemoryAggregateStore>,
    cache: Arc<Moody>,
    shutdown: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
}

impl Stage {
    /// With an aggregator.
    fn new(cache: Moody) -> Self {
        Self::with(cache, |totals, cache| Box::new(Aggregator::new(totals).with_cache(cache)))
    }

    /// With an ingestor that also counts.
    fn combined(cache: Moody) -> Self {
        Self::with(cache, |totals, cache| {
            let store = Arc::new(MemoryCombinedStore::of(Arc::default(), totals));
            Box::new(Ingestor::combined(store, Arc::new(MemoryDeadLetters::new())).with_cache(cache))
        })
    }

    fn with(
        cache: Moody,
        service: impl FnOnce(Arc<MemoryAggregateStore>, Arc<Moody>) -> Box<dyn EventConsumer>,
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
        timeout(Duration::from_secs(5), committed).await.expect("the cache never slows the consumer");
    }

    async fn stop(self) -> Duration {
        self.shutdown.cancel();
        let start = Instant::now();
        self.run.await.expect("no panic").expect("a stop");
        start.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_at_once_and_leaves_other_months_alone() {
    for stage in [Stage::new(Moody::default()), Stage::combined(Moody::default())] {
        stage.cache.told.notified().await; // of everything, at the start
        for month in ["2025-09", "2025-10"] {
            stage.cache.fill(month).await;
        }
        stage.count(1, "2025-10").await;
        assert!(!stage.cache.keeps("2025-10").await);
        assert!(stage.cache.keeps("2025-09").await);
        // A duplicate changes nothing.
        stage.cache.fill("2025-10").await;
        append(&stage.log, json(1));
        stage.count(2, "2025-09").await;
        assert!(stage.cache.keeps("2025-10").await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_could_not_tell_is_told_at_the_start() {
    let cache = Moody::default();
    cache.fill("2025-01").await;
    let stage = Stage::new(cache);
    stage.cache.told.notified().await;
    assert!(!stage.cache.keeps("2025-01").await);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_was_away_is_told_of_every_month_when_it_is_back() {
    let stage = Stage::new(Moody::default());
    stage.cache.told.notified().await;
    let months = ["2025-08", "2025-09", "2025-10"];
    for month in months {
        stage.cache.fill(month).await;
    }
    stage.cache.is_away.store(true, SeqCst);
    for (id, month) in months.iter().enumerate() {
        stage.count(id as u128, month).await;
    }
    sleep(HOUR).await;
    stage.cache.is_away.store(false, SeqCst);
    let back = Instant::now();
    stage.cache.told.notified().await;
    assert!(back.elapsed() <= Duration::from_secs(1), "told after {:?}", back.elapsed());
    for month in months {
        assert!(!stage.cache.keeps(month).await, "{month}");
    }
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_hangs_slows_neither_the_consumer_nor_a_stop_by_more_than_a_second() {
    let stage = Stage::new(Moody { hangs: true.into(), ..Moody::default() });
    for id in 0..20 {
        stage.count(id, "2025-10").await;
    }
    let run = timeout(HOUR, stage.stop()).await;
    assert!(run.is_ok_and(|took| took <= Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_fails_for_good_is_tried_once_a_change() {
    let stage = Stage::new(Moody::default());
    stage.cache.told.notified().await;
    stage.cache.is_broken.store(true, SeqCst);
    let before = stage.cache.attempts.load(SeqCst);
    for id in 1..=3 {
        stage.count(id, "2025-10").await;
        sleep(HOUR).await;
        assert_eq!(stage.cache.attempts.load(SeqCst), before + id as usize);
    }
    // It is mended: all is told with the next change.
    stage.cache.fill("2025-10").await;
    stage.cache.is_broken.store(false, SeqCst);
    stage.count(4, "2025-09").await;
    assert!(!stage.cache.keeps("2025-10").await);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_changes_are_told_before_the_run_ends() {
    let stage = Stage::new(Moody::default());
    stage.cache.told.notified().await;
    stage.cache.fill("2025-10").await;
    append(&stage.log, json(1));
    stage.log.close();
    stage.run.await.expect("no panic").expect("the end");
    assert!(!stage.cache.keeps("2025-10").await);
}

#[tokio::test]
async fn invalid_records_are_passed_over_and_duplicates_count_once() {
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

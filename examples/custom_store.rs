//! A store that wraps another store and measures each call. `testkit` tests it with an inner store in memory, before the
//! pipeline uses it. In the crate of an adapter, such a call of `testkit` is a test. A store for another database implements
//! the same port, and `testkit` tests it in the same way.
//!
//! `cargo run -p netagg-examples --example custom_store`

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use netagg_core::memory::{MemoryAggregateStore, MemoryLog};
use netagg_core::ports::{AggregateStore, Clock, EventPublisher, SystemClock, TotalsQuery, TotalsReader};
use netagg_core::{AggregateRow, Aggregator, Batch, BatchOutcome, Contribution, Error, Granularity, OutgoingRecord};
use netagg_core::{Timestamp, testkit};
use tokio_util::sync::CancellationToken;

/// Measures the calls of a store.
#[derive(Debug)]
struct Measured<S> {
    inner: S,
    calls: AtomicU64,
    slowest: Mutex<Duration>,
}

impl<S> Measured<S> {
    fn new(inner: S) -> Self {
        Self { inner, calls: AtomicU64::new(0), slowest: Mutex::default() }
    }

    async fn measure<T>(&self, call: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let result = call.await;
        self.calls.fetch_add(1, Relaxed);
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = begun.elapsed().max(*slowest);
        result
    }
}

#[async_trait]
impl<S: AggregateStore> AggregateStore for Measured<S> {
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        self.measure(self.inner.add(batch)).await
    }
}

#[async_trait]
impl<S: TotalsReader> TotalsReader for Measured<S> {
    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        self.measure(self.inner.totals(query)).await
    }

    // A wrapper must also forward the methods that have a default, because the default does not call the inner store.
    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        self.measure(self.inner.complete_through()).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    testkit::aggregate_store(async || Arc::new(Measured::new(MemoryAggregateStore::new()))).await;
    println!("the store passes the test suite of the port");
    let log = MemoryLog::new("events.telecom", 4);
    let now = SystemClock.now();
    for id in (0..500_u64).chain(0..100) {
        let json = format!(
            r#"{{"event_id":"00000000-0000-4000-8000-{id:012}","source_id":"example","user_id":"user-{}","type":"DATA",
            "started_at":"{now}","bytes_up":{id},"bytes_down":1000000}}"#,
            id % 20
        );
        log.publish(vec![OutgoingRecord::new(json)]).await?;
    }
    log.close();

    let store = Arc::new(Measured::new(MemoryAggregateStore::new()));
    let aggregator = Aggregator::new(store.clone());
    aggregator.run(&mut log.source("aggregator-group"), CancellationToken::new()).await?;
    let stats = aggregator.stats().snapshot();
    println!("{} records: {} counted, {} duplicates", stats.consumed, stats.new, stats.duplicates);
    let today = now.day();
    let query = TotalsQuery { granularity: Granularity::Month, from: today, to: today, event_type: None };
    for AggregateRow { date, event_type, totals } in store.totals(&query).await? {
        println!("{date} {event_type}: {} events, {} bytes up", totals.count_events, totals.sum_bytes_up);
    }
    let slowest = *store.slowest.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{} calls, the slowest took {slowest:?}", store.calls.load(Relaxed));
    Ok(())
}

//! A cache that wraps another cache: several tenants share the inner cache, each with its own names. `testkit` tests it with an
//! inner cache in memory. In the crate of an adapter, such a call of `testkit` is a test. In production the inner cache is a
//! `RedisCache`.
//!
//! `cargo run -p netagg-examples --example custom_cache`

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netagg_core::bytes::Bytes;
use netagg_core::memory::{MemoryAggregateStore, MemoryCache, MemoryEventStore};
use netagg_core::ports::{AggregateStore, Cache, CacheKey, CacheTicket, Lookup};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::usage::{AggregatesRequest, UsageConfig, UsageService};
use netagg_core::{Batch, BoxError, Contribution, Error, Granularity, Month, Zone, testkit};

/// A cache for one tenant, in a shared cache.
#[derive(Debug)]
struct TenantCache {
    inner: Arc<dyn Cache>,
    tenant: &'static str,
}

#[async_trait]
impl Cache for TenantCache {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        let key = CacheKey { name: format!("{}/{}", self.tenant, key.name), months: key.months.clone() };
        self.inner.lookup(&key).await
    }

    // The ticket comes from the inner cache. It contains the key of the tenant and the versions of its months at the lookup.
    async fn fill(&self, ticket: CacheTicket, response: Bytes, ttl: Duration) -> Result<(), Error> {
        self.inner.fill(ticket, response, ttl).await
    }

    // The responses of other tenants become stale, too. They are computed again, so no tenant gets a wrong response.
    async fn invalidate(&self, months: &[Month]) -> Result<(), Error> {
        self.inner.invalidate(months).await
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.inner.invalidate_all().await
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    testkit::cache(async || Arc::new(TenantCache { inner: Arc::new(MemoryCache::default()), tenant: "one" })).await;
    println!("the cache passes the test suite of the port");

    let shared: Arc<dyn Cache> = Arc::new(MemoryCache::default());
    for (tenant, events) in [("north", 3), ("south", 5)] {
        let totals = MemoryAggregateStore::new();
        let contribution = |id| Contribution::of(&event(EventTemplate { id, ..EventTemplate::default() }));
        totals.add(&Batch::new((0..events).map(contribution).collect())).await?;
        let cache = Arc::new(TenantCache { inner: shared.clone(), tenant });
        let store = Arc::new(MemoryEventStore::new());
        let usage = UsageService::new(store, Arc::new(totals), UsageConfig::default()).with_cache(cache);
        let day = Some("2025-10-20".parse()?);
        let granularity = Granularity::Day;
        let request = AggregatesRequest { granularity, from: day, to: day, event_type: None, zone: Zone::UTC };
        // Both tenants send the same request. Each tenant gets its own response, first from the stores, then from the cache.
        for _ in 0..2 {
            let rows = usage.aggregates(request.clone()).await?.rows;
            assert_eq!(rows[0].totals.count_events, events as u64);
        }
        println!("{tenant}: {events} events");
    }
    Ok(())
}

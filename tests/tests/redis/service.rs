//! The totals that callers get are correct in every kind of outage of Redis.

use std::sync::Arc;
use std::time::Duration;

use netagg_core::memory::{MemoryAggregateStore, MemoryEventStore, MemoryLog};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::usage::{AggregatesRequest, UsageConfig, UsageService};
use netagg_core::{Aggregator, Granularity, PartitionId, Record, Zone};
use netagg_redis::RedisCache;
use netagg_testkit::{eventually, redis};
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, at, until_it_answers};
use crate::support::proxy::Proxy;

/// An aggregator and a usage service. Each has its own cache client for the same Redis.
struct Setup {
    log: MemoryLog,
    service: UsageService,
    published: u64,
}

impl Setup {
    async fn start(url: &str) -> Self {
        let (log, store) = (MemoryLog::new("events", 1), Arc::new(MemoryAggregateStore::new()));
        let [writer, reader] = [(); 2].map(|()| Arc::new(RedisCache::new(at(url)).unwrap()));
        until_it_answers(&writer).await;
        until_it_answers(&reader).await;
        let mut source = log.source("aggregator");
        let aggregator = Aggregator::new(store.clone()).with_cache(writer);
        tokio::spawn(async move { aggregator.run(&mut source, CancellationToken::new()).await });
        let service =
            UsageService::new(Arc::new(MemoryEventStore::new()), store, UsageConfig::default()).with_cache(reader);
        Self { log, service, published: 0 }
    }

    fn publish(&mut self) {
        self.published += 1;
        let event = event(EventTemplate { id: self.published.into(), ..EventTemplate::default() });
        let record = Record::new(PartitionId::new("events", 0), 0, event.encode());
        self.log.append(record.with_timestamp(event.fields().started_at));
    }

    async fn events(&self) -> u64 {
        let (from, to) = ("2025-10-01".parse().ok(), "2025-10-31".parse().ok());
        let request = AggregatesRequest { granularity: Granularity::Day, from, to, event_type: None, zone: Zone::UTC };
        let response = tokio::time::timeout(DEADLINE, self.service.aggregates(request)).await.expect("in time");
        response.unwrap().rows.iter().map(|row| row.totals.count_events).sum()
    }

    /// Waits until a response contains every event. After that, all responses must contain every event.
    async fn is_exact(&self, fault: &str) {
        eventually(DEADLINE, fault, async || match self.events().await {
            events if events == self.published => Ok(()),
            events => Err(format!("{events} of {}", self.published)),
        })
        .await;
        for _ in 0..20 {
            assert_eq!(self.events().await, self.published, "{fault}");
        }
    }
}

#[tokio::test]
async fn totals_are_exact_in_every_outage_of_redis() {
    let server = redis::Server::start().await;
    let (other, proxy) = (redis::Server::start().await, Proxy::start(server.port()).await);
    let mut setup = Setup::start(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    let faults: [(&str, &dyn Fn()); 6] = [
        ("no fault", &|| {}),
        ("slow", &|| proxy.slow(Duration::from_millis(30))),
        ("slower than the timeout", &|| proxy.slow(Duration::from_millis(300))),
        ("stalled", &|| proxy.stall()),
        ("connections closed", &|| proxy.cut()),
        ("another server", &|| proxy.redirect_to(other.port())),
    ];
    for (fault, begin) in faults {
        begin();
        setup.publish();
        setup.is_exact(fault).await;
        setup.publish();
        proxy.pass();
        setup.is_exact(&format!("after the fault: {fault}")).await;
    }
    redis::ask(other.port(), "CONFIG SET maxmemory 1").await.unwrap();
    setup.publish();
    setup.is_exact("memory full").await;
    other.pause().await;
    setup.publish();
    setup.is_exact("frozen").await;
    other.resume().await;
    setup.publish();
    setup.is_exact("after the freeze").await;
    other.crash().await;
    setup.publish();
    setup.is_exact("crashed").await;
    other.start_again().await;
    setup.publish();
    setup.is_exact("started again").await;
}

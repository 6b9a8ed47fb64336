//! What users see of it: totals that are right, whatever Redis does.

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

/// An aggregator and a service, each with a cache of its own in the same Redis.
struct Stage {
    log: MemoryLog,
    service: UsageService,
    published: u64,
}

impl Stage {
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
        let answer = tokio::time::timeout(DEADLINE, self.service.aggregates(request)).await.expect("in time");
        answer.unwrap().rows.iter().map(|row| row.totals.count_events).sum()
    }

    /// By and by every event is in the answers, and then in all of them.
    async fn is_right(&self, what: &str) {
        eventually(DEADLINE, what, async || match self.events().await {
            events if events == self.published => Ok(()),
            events => Err(format!("{events} of {}", self.published)),
        })
        .await;
        for _ in 0..20 {
            assert_eq!(self.events().await, self.published, "{what}");
        }
    }
}

#[tokio::test]
async fn totals_are_right_whatever_redis_does() {
    let server = redis::Server::start().await;
    let (other, proxy) = (redis::Server::start().await, Proxy::start(server.port()).await);
    let mut stage = Stage::start(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    let trouble: [(&str, &dyn Fn()); 6] = [
        ("fine", &|| {}),
        ("slow", &|| proxy.slow(Duration::from_millis(30))),
        ("too slow", &|| proxy.slow(Duration::from_millis(300))),
        ("mute", &|| proxy.stall()),
        ("cut off", &|| proxy.cut()),
        ("another one", &|| proxy.lead_to(other.port())),
    ];
    for (what, begin) in trouble {
        begin();
        stage.publish();
        stage.is_right(what).await;
        stage.publish();
        proxy.pass();
        stage.is_right(&format!("{what}, and over")).await;
    }
    redis::ask(other.port(), "CONFIG SET maxmemory 1").await.unwrap();
    stage.publish();
    stage.is_right("full").await;
    other.pause().await;
    stage.publish();
    stage.is_right("frozen").await;
    other.resume().await;
    stage.publish();
    stage.is_right("thawed").await;
    other.crash().await;
    stage.publish();
    stage.is_right("gone").await;
    other.start_again().await;
    stage.publish();
    stage.is_right("back").await;
}

//! The whole pipeline in one process, without any other service. It publishes events, some of them twice, and two invalid
//! records. It stores and counts the events, then reads totals and the events of one user.
//!
//! `cargo run -p netagg-examples --example embed_in_memory`

use std::error::Error;
use std::sync::Arc;

use netagg_core::memory::{MemoryAggregateStore, MemoryCache, MemoryDeadLetters, MemoryEventStore, MemoryLog};
use netagg_core::ports::{Clock, EventPublisher, SystemClock};
use netagg_core::usage::{AggregatesRequest, DetailRequest, UsageConfig, UsageService};
use netagg_core::{Aggregator, EventType, Granularity, Ingestor, OutgoingRecord, Zone};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let log = MemoryLog::new("events.telecom", 8);
    publish(&log).await?;
    log.close(); // no record follows: the services end after they have read all records

    let events = Arc::new(MemoryEventStore::new());
    let totals = Arc::new(MemoryAggregateStore::new());
    let dead_letters = Arc::new(MemoryDeadLetters::new());
    let cache = Arc::new(MemoryCache::default());

    // Each of the two services has its own consumer group. One of them may lag, stop or restart without an effect on the other.
    let ingestor = Ingestor::new(events.clone(), dead_letters.clone());
    let aggregator = Aggregator::new(totals.clone()).with_cache(cache.clone());
    let (mut to_store, mut to_count) = (log.source("ingestor-group"), log.source("aggregator-group"));
    let shutdown = CancellationToken::new(); // cancel this token to stop gracefully
    tokio::try_join!(ingestor.run(&mut to_store, shutdown.clone()), aggregator.run(&mut to_count, shutdown))?;

    let stats = ingestor.stats().snapshot();
    println!(
        "{} records: {} events, {} duplicates, {} invalid",
        stats.consumed, stats.new, stats.duplicates, stats.invalid
    );
    for dead_letter in dead_letters.sent() {
        println!("dead letter ({}): {}", dead_letter.reason.kind(), dead_letter.reason);
    }

    let usage = UsageService::new(events, totals, UsageConfig::default()).with_cache(cache);
    let request = AggregatesRequest {
        granularity: Granularity::Day,
        from: None,
        to: None,
        event_type: None,
        zone: Zone::UTC, // or "Europe/Moscow".parse()?
    };
    println!("\n{:<12}{:<14}{:>8}{:>10}{:>14}{:>14}", "day", "type", "events", "seconds", "bytes up", "bytes down");
    for row in usage.aggregates(request).await?.rows {
        let sums = row.totals;
        println!(
            "{:<12}{:<14}{:>8}{:>10}{:>14}{:>14}",
            row.date.to_string(),
            row.event_type,
            sums.count_events,
            sums.sum_duration,
            sums.sum_bytes_up,
            sums.sum_bytes_down
        );
    }

    let request = DetailRequest { limit: Some(3), ..DetailRequest::of("user-7".parse()?) };
    let page = usage.user_detail(request).await?;
    println!("\nthe newest of user-7's {} events:", page.total_count);
    for event in &page.items {
        println!("{}", String::from_utf8(event.encode())?);
    }
    Ok(())
}

/// Publishes a thousand events of the last 27 hours, every tenth event twice, and two invalid records.
async fn publish(log: &MemoryLog) -> Result<(), Box<dyn Error>> {
    let now = SystemClock.now();
    let mut records = Vec::new();
    for id in 0..1_000_u64 {
        let user = format!("user-{}", id % 50);
        let event_type = EventType::ALL[id as usize % EventType::ALL.len()];
        let started_at = now.saturating_sub(std::time::Duration::from_secs(1 + id * 97));
        let bytes = if event_type == EventType::Data { id * 1_000 } else { 0 };
        let json = format!(
            r#"{{"event_id":"00000000-0000-4000-8000-{id:012}","source_id":"example","user_id":"{user}",
            "type":"{event_type}","started_at":"{started_at}","duration_sec":{},"bytes_up":{bytes}}}"#,
            id % 300
        );
        let record = OutgoingRecord::new(json).with_key(user);
        records.extend(std::iter::repeat_n(record, if id % 10 == 0 { 2 } else { 1 }));
    }
    for broken in [r#"{"event_id":"42"}"#, "not JSON"] {
        records.push(OutgoingRecord::new(broken));
    }
    Ok(log.publish(records).await?)
}

//! Ingestor and aggregator with PostgreSQL in your process. The events come from a log in memory, and at the end the example
//! reads the totals. Each run adds 1,000 events.
//!
//! ```sh
//! export DATABASE_URL=postgres://app_user:app_password@localhost/network_events
//! cargo run -p netagg-examples --features postgres --example embed_with_postgres
//! ```

use std::sync::Arc;

use netagg_core::memory::{MemoryDeadLetters, MemoryLog};
use netagg_core::ports::{Clock, EventPublisher, SystemClock};
use netagg_core::usage::{AggregatesRequest, UsageConfig, UsageService};
use netagg_core::uuid::Uuid;
use netagg_core::{Aggregator, BoxError, Granularity, Ingestor, OutgoingRecord, Zone};
use netagg_pg::{PgAggregateStore, PgConfig, PgEventStore, Postgres};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let postgres = Postgres::new(PgConfig::new(url.parse()?)); // connects at its first use
    postgres.migrations().up().await?;
    // Events are stored in month partitions. In a service that runs for months, `PartitionMaintenance` creates the partitions.
    postgres.partitions().ensure_ahead(SystemClock.now(), 1).await?;

    let log = MemoryLog::new("events.telecom", 4); // in production a `KafkaSource`, or your own source
    log.publish((0..1_000).map(event).collect()).await?;
    log.close(); // no record follows: the services end after they have read all records

    let events = Arc::new(PgEventStore::new(postgres.clone()));
    let totals = Arc::new(PgAggregateStore::new(postgres.clone()));
    let ingestor = Ingestor::new(events.clone(), Arc::new(MemoryDeadLetters::new()));
    let aggregator = Aggregator::new(totals.clone());
    let (mut to_store, mut to_count) = (log.source("ingestor-group"), log.source("aggregator-group"));
    let stop = CancellationToken::new(); // cancel this token to stop gracefully
    tokio::try_join!(ingestor.run(&mut to_store, stop.clone()), aggregator.run(&mut to_count, stop))?;
    println!("{} events stored, {} counted", ingestor.stats().snapshot().new, aggregator.stats().snapshot().new);

    let usage = UsageService::new(events, totals, UsageConfig::default());
    let granularity = Granularity::Day;
    let request = AggregatesRequest { granularity, from: None, to: None, event_type: None, zone: Zone::UTC };
    for row in usage.aggregates(request).await?.rows {
        println!(
            "{} {}: {} events, {} bytes up",
            row.date, row.event_type, row.totals.count_events, row.totals.sum_bytes_up
        );
    }
    postgres.close().await;
    Ok(())
}

fn event(number: u64) -> OutgoingRecord {
    let (id, user, now) = (Uuid::new_v4(), format!("user-{}", number % 50), SystemClock.now());
    OutgoingRecord::new(format!(
        r#"{{"event_id":"{id}","source_id":"example","user_id":"{user}","type":"DATA","started_at":"{now}","bytes_up":{number}}}"#
    ))
    .with_key(user)
}

//! The metrics of two services in one process, in your own Prometheus recorder. netagg describes its metrics and installs no
//! recorder. The example prints the text that `/metrics` of `netagg_api::ops_router` would return.
//!
//! `cargo run -p netagg-examples --example metrics`

use std::sync::Arc;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use netagg_core::memory::{MemoryAggregateStore, MemoryDeadLetters, MemoryEventStore, MemoryLog};
use netagg_core::ports::{Clock, EventPublisher, SystemClock};
use netagg_core::{Aggregator, BATCH_RECORDS_BUCKETS, BATCH_SECONDS_BUCKETS, BoxError, Ingestor, OutgoingRecord};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Install the recorder before the services are made, because the services register their counters at 0.
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("netagg_batch_duration_seconds".to_owned()), BATCH_SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full("netagg_batch_records".to_owned()), BATCH_RECORDS_BUCKETS)?
        .install_recorder()?;
    netagg_core::describe_metrics(); // also call `describe_metrics` of each other netagg crate that you use

    let log = MemoryLog::new("events.telecom", 4);
    let now = SystemClock.now();
    for id in (0..500_u64).chain(0..100) {
        let json = format!(
            r#"{{"event_id":"00000000-0000-4000-8000-{id:012}","source_id":"example","user_id":"user-{}","type":"DATA",
            "started_at":"{now}","bytes_up":{id}}}"#,
            id % 20
        );
        log.publish(vec![OutgoingRecord::new(json)]).await?;
    }
    log.publish(vec![OutgoingRecord::new("not an event")]).await?;
    log.close();

    // The label distinguishes the metrics that both services have: `{service="ingestor"}` and `{service="aggregator"}`.
    let ingestor =
        Ingestor::new(Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new())).with_service_label();
    let aggregator = Aggregator::new(Arc::new(MemoryAggregateStore::new())).with_service_label();
    let (mut to_store, mut to_count) = (log.source("ingestor-group"), log.source("aggregator-group"));
    let stop = CancellationToken::new();
    tokio::try_join!(ingestor.run(&mut to_store, stop.clone()), aggregator.run(&mut to_count, stop))?;

    println!("{}", recorder.render());
    Ok(())
}

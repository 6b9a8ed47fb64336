//! Serves four events from memory, until Ctrl-C: `cargo run -p netagg-api --example serve`.
//!
//! Arguments: the HTTP port and the gRPC port. Default: 8000 and 9090.

use std::error::Error;
use std::sync::Arc;

use netagg_api::Server;
use netagg_core::memory::{MemoryAggregateStore, MemoryEventStore};
use netagg_core::ports::{AggregateStore, EventStore};
use netagg_core::usage::{UsageConfig, UsageService};
use netagg_core::{Batch, Contribution, Event, IdentifiedEvent};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const EVENTS: &str = r#"
{"event_id":"550e8400-e29b-41d4-a716-446655440000","source_id":"provider-1","user_id":"123456789","type":"CALL_OUT","started_at":"2025-10-20T12:34:56Z","ended_at":"2025-10-20T12:56:00Z","duration_sec":127,"meta":{"cell":"A1"}}
{"event_id":"0d9b1c3e-7f7a-4a43-9d59-5f6d0f2b8f11","source_id":"provider-1","user_id":"123456789","type":"SMS_SENT","started_at":"2025-10-20T13:00:00.5Z"}
{"event_id":"7c2f6a52-3b1e-4c0f-8a45-2f4a3f0a9d02","source_id":"provider-2","user_id":"987654321","type":"DATA","started_at":"2025-10-21T08:00:00Z","duration_sec":3600,"bytes_up":9223372036854775807,"bytes_down":1048576}
{"event_id":"7c2f6a52-3b1e-4c0f-8a45-2f4a3f0a9d03","source_id":"provider-2","user_id":"987654321","type":"DATA","started_at":"2025-10-21T09:00:00Z","duration_sec":1800,"bytes_up":1,"bytes_down":2097152}
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let events: Vec<Event> =
        EVENTS.trim().lines().map(|line| Event::decode(line.as_bytes())).collect::<Result<_, _>>()?;
    let (stored, counted) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
    counted.add(&Batch::new(events.iter().map(Contribution::of).collect())).await?;
    stored.store(&Batch::new(events.into_iter().map(IdentifiedEvent::from).collect())).await?;
    let service = Arc::new(UsageService::new(stored, counted, UsageConfig::default()));

    let mut ports = std::env::args().skip(1);
    let mut listen = async |default: &str| {
        let port = ports.next().unwrap_or_else(|| default.to_owned());
        TcpListener::bind(format!("127.0.0.1:{port}")).await
    };
    let (http, grpc) = (listen("8000").await?, listen("9090").await?);
    let shutdown = CancellationToken::new();
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
        shutdown.cancel();
    };
    let server = Server::new(service);
    let (_, grpc, ()) = tokio::join!(
        server.clone().serve_http(http, shutdown.clone()),
        server.serve_grpc(grpc, shutdown.clone()),
        stop,
    );
    Ok(grpc?)
}

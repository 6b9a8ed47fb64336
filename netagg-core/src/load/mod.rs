//! Sends a load of realistic events, and checks that each event is stored exactly once.
//!
//! - [`EventModel`] makes each event from the run (seed, users and end) and the number of the event, without other state. So
//!   the check does not have to remember events, and a run may have any length.
//! - [`LoadRun`] sends the events, mixed with duplicates and invalid records. It looks for the events in the store while it
//!   sends, and checks each event at the end.
//! - [`send`] sends events without a check.
//! - [`MemoryPipeline`] runs both services in memory, and checks the stored events and the totals.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use netagg_core::Ingestor;
//! use netagg_core::load::{EventModel, LoadConfig, LoadRun, random_seed};
//! use netagg_core::memory::{MemoryDeadLetters, MemoryEventStore, MemoryLog};
//! use netagg_core::ports::{Clock, SystemClock};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let log = Arc::new(MemoryLog::new("events.telecom", 8));
//! let store = Arc::new(MemoryEventStore::new());
//! let ingestor = Ingestor::new(store.clone(), Arc::new(MemoryDeadLetters::new()));
//! let (mut source, stop) = (log.source("ingestor-group"), CancellationToken::new());
//!
//! let model = EventModel::new(random_seed(), 1_000, SystemClock.now())?;
//! let config = LoadConfig { events: Some(2_000), duration: None, duplicate_rate: 0.1, ..LoadConfig::default() };
//! let run = LoadRun::new(model, LoadConfig { events_per_sec: None, ..config }, Duration::from_millis(100));
//! let checked = async {
//!     let report = run.run(log.clone(), store, CancellationToken::new(), CancellationToken::new()).await;
//!     stop.cancel();
//!     report
//! };
//! let (ingested, report) = tokio::join!(ingestor.run(&mut source, stop.clone()), checked);
//! ingested?;
//! assert!(report?.is_success());
//! # Ok(())
//! # }
//! ```

mod error;
mod event_model;
mod memory_pipeline;
mod report;
mod run;
mod sender;
mod stored_copies;
mod verifier;

pub use error::LoadError;
pub use event_model::{EventModel, random_seed};
pub use memory_pipeline::{MemoryPipeline, Mismatch, Published};
pub use report::LoadReport;
pub use run::LoadRun;
pub use sender::{LoadConfig, LoadStats, Sent, send};
pub use stored_copies::StoredCopies;

//! A load of realistic events, and the check that each is stored exactly once.
//!
//! [`EventModel`] makes each event from the run and its number alone: no part of the check has to remember events, so a run may
//! have any length. [`LoadRun`] sends the events, with duplicates and invalid records among them, looks for them in the store
//! while it sends, and in the end judges each of them. [`send`] sends without a check.
//! [`MemoryPipeline`] is both services in memory, with a check of the stored events and the totals.
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

//! Test suites for the ports. Any adapter can run the suite of its port.
//!
//! Each suite tests every behaviour that the port promises, and panics at the first behaviour that is missing. Most suites
//! take a function that makes a new, empty adapter:
//!
//! ```
//! use std::sync::Arc;
//! use netagg_core::{memory::MemoryEventStore, testkit};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! testkit::event_store(async || Arc::new(MemoryEventStore::new())).await;
//! # });
//! ```
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a suite panics at a missing behaviour"
)]

mod aggregate_store;
mod cache;
mod check;
mod combined_store;
mod completeness_store;
mod dead_letters;
mod event_publisher;
mod event_source;
mod event_store;
mod events;
mod group_offsets;
mod plain_source;
mod reopened;
mod totals;
mod totals_repair;

pub use aggregate_store::aggregate_store;
pub use cache::cache;
pub use combined_store::combined_store;
pub use completeness_store::completeness_store;
pub use dead_letters::dead_letters;
pub use event_publisher::event_publisher;
pub use event_source::event_source;
pub use event_store::event_store;
pub use events::{EventTemplate, event};
pub use group_offsets::{group_admin, group_offsets};
pub use plain_source::plain_source;
pub use reopened::{aggregate_store_reopened, event_store_reopened};
pub use totals_repair::{RepairedStores, totals_repair};

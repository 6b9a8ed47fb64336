//! Adapters that keep all data in memory, for most ports. Use them in tests, examples and demonstrations. Read them to learn
//! the requirements of a port.

mod aggregate_store;
mod cache;
mod combined_store;
mod dead_letters;
mod event_store;
mod ledger;
mod log;
mod progress;
mod totals_repair;

pub use aggregate_store::MemoryAggregateStore;
pub use cache::MemoryCache;
pub use combined_store::MemoryCombinedStore;
pub use dead_letters::MemoryDeadLetters;
pub use event_store::MemoryEventStore;
pub use log::{MemoryLog, MemorySource};
pub use totals_repair::MemoryTotalsRepair;

//! The ports: the interfaces through which netagg's services use the outside world, in the terms of the domain.
//!
//! Each port is a small, object-safe trait. Its documentation says which data are durable when a call returns, how a repeated
//! call behaves, and which calls are safe to cancel. The module `testkit` (a feature) has test suites for the ports, and every
//! adapter runs the suite of its port.

mod aggregate_store;
mod cache;
mod clock;
mod combined_store;
mod completeness_store;
mod dead_letters;
mod event_decoder;
mod event_publisher;
mod event_source;
mod event_store;
mod group_admin;
mod group_offsets;
mod totals_reader;
mod totals_repair;
mod trace_propagator;

pub use aggregate_store::AggregateStore;
pub use cache::{Cache, CacheKey, CacheTicket, Lookup};
pub use clock::{Clock, SystemClock};
pub use combined_store::CombinedStore;
pub use completeness_store::CompletenessStore;
pub use dead_letters::DeadLetters;
pub use event_decoder::EventDecoder;
pub use event_publisher::EventPublisher;
pub use event_source::{EventSource, SourceEvent};
pub use event_store::{EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelinePosition, TimelineQuery};
pub use group_admin::GroupAdmin;
pub use group_offsets::{GroupOffsets, PartitionLag};
pub use totals_reader::{TotalsQuery, TotalsReader};
pub use totals_repair::TotalsRepair;
pub use trace_propagator::TracePropagator;

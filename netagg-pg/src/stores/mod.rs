//! The ports on the tables of events, totals and API keys.

pub(crate) mod aggregate_store;
#[cfg(feature = "api-keys")]
mod api_keys;
mod combined_store;
mod completeness;
pub(crate) mod dedup;
pub(crate) mod dirty_days;
mod event_store;
mod in_flight;
pub(crate) mod progress;
mod recent_keys;
mod set_aside;
mod store_hook;
#[cfg(feature = "load")]
mod stored_copies;
mod totals;

pub use self::aggregate_store::PgAggregateStore;
#[cfg(feature = "api-keys")]
pub use self::api_keys::PgApiKeys;
pub use self::combined_store::PgCombinedStore;
pub use self::event_store::PgEventStore;
pub use self::set_aside::{SetAside, WaitingMonth};
pub use self::store_hook::StoreHook;

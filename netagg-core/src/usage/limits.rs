//! The limits of pages and ranges.

/// The most events of a page of a user's detail.
pub const MAX_LIMIT: u32 = 1_000;
/// The events of a page of a user's detail if the request has no limit.
pub const DEFAULT_LIMIT: u32 = 100;
/// The largest size of a page's events, by [`Event::size`](crate::Event::size). A page and its frame then stay below 4 MiB, the
/// default limit of gRPC clients. A page has at least one event.
pub const MAX_PAGE_BYTES: u64 = (4 * 1_024 - 64) * 1_024;
/// The size of the events that a stream reads from the store at a time, by [`Event::size`](crate::Event::size). The last
/// event may exceed it.
pub const MAX_CHUNK_BYTES: u64 = 1_024 * 1_024;
/// The length of a range without a start, in days.
pub const DEFAULT_DAYS: u32 = 30;
/// The most days of totals in one answer: ten years.
pub const MAX_DAYS: u32 = 3_653;
/// The most days of everybody's totals in one answer in a zone other than UTC. These totals are computed from the events.
pub const MAX_ZONE_DAYS: u32 = 93;

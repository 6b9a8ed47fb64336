//! The limits of pages and ranges.

/// The maximum number of events in a page of a user's detail.
pub const MAX_LIMIT: u32 = 1_000;
/// The maximum number of events in a page of a user's detail if the request has no limit.
pub const DEFAULT_LIMIT: u32 = 100;
/// The maximum size of the events in a page, by [`Event::size`](crate::Event::size). It keeps a page and its frame below 4 MiB,
/// the default limit of gRPC clients. A page has at least one event.
pub const MAX_PAGE_BYTES: u64 = (4 * 1_024 - 64) * 1_024;
/// The size of the events that a stream reads from the store in one call, by [`Event::size`](crate::Event::size). The last
/// event of a call may exceed it.
pub const MAX_CHUNK_BYTES: u64 = 1_024 * 1_024;
/// The length in days of a range whose start is not given.
pub const DEFAULT_DAYS: u32 = 30;
/// The maximum number of days of totals in one response: ten years.
pub const MAX_DAYS: u32 = 3_653;
/// The maximum number of days in one response with the totals of all users in a zone other than UTC. The service computes
/// such totals from the events.
pub const MAX_ZONE_DAYS: u32 = 93;

//! The read side: the events of a user, the totals of a user, and the totals of all users. Responses are cached.

mod config;
mod cursor;
mod error;
mod limits;
mod periods;
mod prepared;
mod query;
mod service;
mod single_flight;

pub use config::UsageConfig;
pub use cursor::{CursorSecret, is_cursor};
pub use error::UsageError;
pub use limits::{DEFAULT_DAYS, DEFAULT_LIMIT, MAX_CHUNK_BYTES, MAX_DAYS, MAX_LIMIT, MAX_PAGE_BYTES, MAX_ZONE_DAYS};
pub use periods::Periods;
pub use prepared::{PreparedAggregates, PreparedDetail, PreparedUserAggregates};
pub use query::{
    AggregatesAnswer, AggregatesRequest, CURSOR_ACCEPTED, DetailPage, DetailRequest, InvalidParameter, InvalidQuery,
    UserAggregatesAnswer, UserAggregatesRequest,
};
pub use service::UsageService;

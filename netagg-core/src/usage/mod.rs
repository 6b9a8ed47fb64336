//! The read side: a user's detail and everybody's totals, cached.

mod cursor;
mod query;
mod service;

pub use cursor::CursorSecret;
pub use query::{
    AggregatesAnswer, AggregatesRequest, DEFAULT_DAYS, DEFAULT_LIMIT, DetailPage, DetailRequest, InvalidParameter,
    InvalidQuery, MAX_DAYS, MAX_LIMIT,
};
pub use service::{UsageConfig, UsageService};

#![doc = include_str!("../README.md")]

mod aggregate;
mod batch;
mod error;
mod event;
pub mod ports;
mod record;
mod time;
pub mod usage;

pub use aggregate::{
    AggregateRow, Contribution, Granularity, Totals, UnknownGranularity, sum_by_day,
};
pub use batch::{Batch, BatchOutcome, Conflict, Identified, IdentifiedEvent, Identity};
pub use error::{BoxError, Error};
pub use event::{
    BoundedText, ContentHash, Event, EventFields, EventKey, EventLimits, EventType, InvalidEvent, InvalidKind,
    InvalidText, MAX_BYTES, MAX_DEPTH, MAX_DURATION_SEC, Meta, SourceId, UnknownEventType, UserId,
};
pub use record::{DeadLetter, Header, OutgoingRecord, PartitionId, Position, Record, Span};
pub use time::{Day, Month, ParseTimeError, Timestamp};

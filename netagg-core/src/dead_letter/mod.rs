//! Records without a valid event.

mod headers;

use crate::event::InvalidEvent;
use crate::record::Record;

/// A record without a valid event, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DeadLetter {
    /// The record, unchanged.
    pub record: Record,
    /// The rule that the record breaks.
    pub reason: InvalidEvent,
}

//! Records that hold no valid event.

mod headers;

use crate::event::InvalidEvent;
use crate::record::Record;

/// A record that holds no valid event, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DeadLetter {
    /// The record, as it was read.
    pub record: Record,
    /// The rule it breaks.
    pub reason: InvalidEvent,
}

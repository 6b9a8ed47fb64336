//! Lines on their way from the reader to its caller.

use bytes::Bytes;
use netagg_core::{Event, OutgoingRecord};

/// Lines that are handed over together, at most.
const LINES: usize = 1_000;
/// Bytes that are handed over together; the last line may exceed them.
const BYTES: usize = 1 << 20;

/// Lines that are handed over together.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The number of the line after the last one.
    pub(crate) end: u64,
    /// The lines with an event, in order.
    pub(crate) events: Vec<GivenEvent>,
    /// The lines without an event, except blank lines.
    pub(crate) invalid: Vec<InvalidLine>,
    /// The size of the lines in bytes.
    pub(super) bytes: usize,
}

impl Chunk {
    pub(super) fn is_full(&self) -> bool {
        self.events.len() + self.invalid.len() >= LINES || self.bytes >= BYTES
    }

    pub(super) fn append(&mut self, mut later: Self) {
        self.end = later.end;
        self.events.append(&mut later.events);
        self.invalid.append(&mut later.invalid);
    }
}

/// A line with an event.
#[derive(Debug)]
pub(crate) struct GivenEvent {
    pub(crate) event: Event,
    /// The line as it stands.
    pub(super) line: Bytes,
}

impl GivenEvent {
    /// The line as it stands, keyed by the event's user.
    pub(crate) fn into_record(self) -> OutgoingRecord {
        let key = Some(Bytes::copy_from_slice(self.event.fields().user_id.as_str().as_bytes()));
        OutgoingRecord { key, value: Some(self.line), headers: Vec::new() }
    }
}

/// A line without an event.
#[derive(Debug)]
pub(crate) struct InvalidLine {
    pub(super) number: u64,
    pub(super) kind: &'static str,
    pub(super) reason: String,
}

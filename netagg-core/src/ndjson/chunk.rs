//! Chunks of validated lines, which the reader returns to its caller.

use std::fmt;

use bytes::Bytes;

use super::lines::MAX_LINE_BYTES;
use crate::event::{Event, InvalidEvent};
use crate::record::OutgoingRecord;

/// The largest number of lines in one chunk of the reader.
const LINES: usize = 1_000;
/// The size in bytes from which a chunk of the reader is full. The last line may exceed this size.
const BYTES: usize = 1 << 20;

/// Lines that are returned together.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Chunk {
    /// The number of the line after the last line of the chunk.
    pub next_line: u64,
    /// The lines with an event, in order.
    pub events: Vec<LineEvent>,
    /// The lines without an event, except blank lines, in order.
    pub rejected: Vec<RejectedLine>,
    /// The size of the lines in bytes.
    pub(super) bytes: usize,
}

impl Chunk {
    pub(super) fn is_full(&self) -> bool {
        self.events.len() + self.rejected.len() >= LINES || self.bytes >= BYTES
    }

    pub(super) fn append(&mut self, mut later: Self) {
        self.next_line = later.next_line;
        self.events.append(&mut later.events);
        self.rejected.append(&mut later.rejected);
        self.bytes += later.bytes;
    }
}

/// A line with an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LineEvent {
    /// The event.
    pub event: Event,
    /// The unchanged line.
    pub line: Bytes,
}

impl LineEvent {
    /// The unchanged line as a record, with the user of the event as key.
    pub fn into_record(self) -> OutgoingRecord {
        self.event.keyed_record(self.line)
    }
}

/// A line without an event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedLine {
    /// The number of the line, from 1.
    pub number: u64,
    /// Why the line has no event.
    pub reason: Rejection,
}

/// Why a line has no event. It displays as a text for users.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The line is not a valid event within the limits.
    Invalid(InvalidEvent),
    /// The line has more than [`MAX_LINE_BYTES`] bytes.
    TooLong,
    /// After the end of the compressed data, there are this many bytes that are neither compressed data nor padding.
    TrailingBytes(u64),
}

impl Rejection {
    /// A short name: an [`InvalidKind`](crate::InvalidKind), `too_long` or `trailing_bytes`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Invalid(reason) => reason.kind().as_str(),
            Self::TooLong => "too_long",
            Self::TrailingBytes(_) => "trailing_bytes",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => reason.fmt(f),
            Self::TooLong => write!(f, "a line of more than {MAX_LINE_BYTES} bytes"),
            Self::TrailingBytes(bytes) => {
                write!(f, "{bytes} bytes after the end of the compressed data are neither gzip nor zstd")
            }
        }
    }
}

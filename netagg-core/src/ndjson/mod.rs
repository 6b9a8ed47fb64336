//! Reads events from a file or a stream with one JSON object per line, plain or compressed with gzip or zstd.
//!
//! A separate thread reads, decompresses and validates the lines, and [`Chunks::next`] returns them. The reader:
//!
//! - decompresses gzip and zstd (feature `ndjson-zstd`), also several members or frames with padding between them;
//! - ignores byte order marks, line ends (LF and CRLF), blank lines and zero bytes;
//! - skips lines of more than [`MAX_LINE_BYTES`] bytes;
//! - recognises about thirty other formats by the first bytes of the input, and names the format instead of rejecting every
//!   line.
//!
//! [`EventLimits::admit`] validates each line, as if a service received it now.
//!
//! ```
//! use std::io::Cursor;
//!
//! use netagg_core::ndjson::NdjsonReader;
//! use netagg_core::ports::{Clock, SystemClock};
//! use netagg_core::EventLimits;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = SystemClock.now();
//! let text = format!(
//!     r#"{{"event_id":"550e8400-e29b-41d4-a716-446655440000","source_id":"s","user_id":"1","type":"SMS_SENT","started_at":"{now}"}}
//! hello
//! "#
//! );
//! // For a file: `.read(|| std::fs::File::open("events.ndjson.gz"))`.
//! let mut chunks = NdjsonReader::new(EventLimits::default()).read(|| Ok(Cursor::new(text)));
//! let (mut events, mut rejected) = (Vec::new(), Vec::new());
//! while let Some(chunk) = chunks.next().await? {
//!     events.extend(chunk.events);
//!     rejected.extend(chunk.rejected);
//! }
//! assert_eq!(events.len(), 1); // `into_record` makes a record of an event, to publish it
//! assert_eq!((rejected[0].number, rejected[0].reason.kind()), (2, "malformed_json"));
//! # Ok(())
//! # }
//! ```

mod chunk;
mod compression;
mod decompressor;
mod error;
mod foreign_format;
mod lines;
mod peek_reader;
mod validator;

use std::io::{self, Read};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::crash;
use crate::event::EventLimits;

pub use chunk::{Chunk, LineEvent, RejectedLine, Rejection};
pub use compression::Compression;
pub use error::{NdjsonError, ReadError};
pub use foreign_format::{ForeignFormat, ForeignInput};
pub use lines::MAX_LINE_BYTES;

use lines::Lines;
use validator::LineValidator;

/// How many chunks are read ahead. They are joined if the caller is slow.
const AHEAD: usize = 4;

/// The settings for reading an input.
#[derive(Clone, Copy, Debug)]
pub struct NdjsonReader {
    limits: EventLimits,
    first_line: u64,
}

impl NdjsonReader {
    /// A reader that accepts events within `limits`, from the first line on.
    pub fn new(limits: EventLimits) -> Self {
        Self { limits, first_line: 1 }
    }

    /// Begins with the line number `first_line`, from 1. Earlier lines are read, but neither validated nor returned.
    pub fn with_first_line(self, first_line: u64) -> Self {
        Self { first_line, ..self }
    }

    /// Opens an input with `open`, and reads it on a thread for blocking work. To show progress, let the opened reader count its
    /// bytes: they are the bytes of the input before decompression.
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime.
    pub fn read<R: Read + Send + 'static>(self, open: impl FnOnce() -> io::Result<R> + Send + 'static) -> Chunks {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            crash::in_task("lines");
            let sent = open()
                .map_err(NdjsonError::Open)
                .and_then(|input| Lines::new(Box::new(input)))
                .map_err(Ended::Failed)
                .and_then(|lines| {
                    let validator = LineValidator::new(self.limits);
                    Reading { lines, validator, sender: &sender }.run(self.first_line)
                });
            if let Err(Ended::Failed(error)) = sent {
                // If the caller has dropped the receiver, the error is not needed.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Chunks { receiver, error: None, reading }
    }
}

/// The lines of an input that is being read. Dropping this ends the reading.
#[derive(Debug)]
pub struct Chunks {
    receiver: mpsc::Receiver<Result<Chunk, NdjsonError>>,
    error: Option<NdjsonError>,
    reading: JoinHandle<()>,
}

impl Chunks {
    /// Returns the lines that are in memory, or waits for the next lines. Returns `None` after the last line.
    ///
    /// Cancel safe: no line is lost if the future is dropped before it is done.
    ///
    /// # Errors
    /// If the input cannot be read. Earlier calls have returned the lines before the failure.
    pub async fn next(&mut self) -> Result<Option<Chunk>, NdjsonError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let Some(mut chunk) = self.receiver.recv().await.transpose()? else {
            // Without this check a reader that has panicked would look like the end of the input.
            return match (&mut self.reading).await {
                Ok(()) => Ok(None),
                Err(error) => Err(NdjsonError::Panicked(error)),
            };
        };
        for _ in 1..AHEAD {
            match self.receiver.try_recv() {
                Ok(Ok(more)) => chunk.append(more),
                Ok(Err(error)) => self.error = Some(error),
                Err(_) => break,
            }
        }
        Ok(Some(chunk))
    }
}

/// Why the reading ends before the end of the input.
enum Ended {
    Failed(NdjsonError),
    /// The caller has dropped [`Chunks`].
    Unwanted,
}

struct Reading<'a> {
    lines: Lines,
    validator: LineValidator,
    sender: &'a mpsc::Sender<Result<Chunk, NdjsonError>>,
}

impl Reading<'_> {
    fn run(mut self, first_line: u64) -> Result<(), Ended> {
        let mut chunk = Chunk::default();
        loop {
            let (number, line) = match self.lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    self.send(&mut chunk)?;
                    let line = self.lines.count() + 1;
                    return Err(Ended::Failed(NdjsonError::Unreadable { line, error }));
                }
            };
            if number >= first_line {
                self.validator.validate(number, line, &mut chunk);
            }
            if chunk.is_full() || self.lines.may_wait() {
                self.send(&mut chunk)?;
            }
        }
        let lines = self.lines.count();
        let trailing = self.lines.trailing();
        if trailing > 0 {
            chunk.rejected.push(RejectedLine { number: lines + 1, reason: Rejection::TrailingBytes(trailing) });
            chunk.next_line = lines + 1;
        }
        self.send(&mut chunk)?;
        if first_line > lines + 1 {
            return Err(Ended::Failed(NdjsonError::TooFewLines { lines, first_line }));
        }
        Ok(())
    }

    fn send(&self, chunk: &mut Chunk) -> Result<(), Ended> {
        if chunk.events.is_empty() && chunk.rejected.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(std::mem::take(chunk))).map_err(|_| Ended::Unwanted)
    }
}

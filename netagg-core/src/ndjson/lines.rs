//! Reads the lines of an input, plain or compressed.

use std::io::{self, BufRead, Read, Take};

use super::decompressor::Decompressed;
use super::error::{NdjsonError, ReadError};
use super::foreign_format::{ForeignFormat, ForeignInput};
use super::peek_reader::PeekReader;

/// The longest accepted line in bytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Reads one line after the other.
pub(super) struct Lines {
    reader: PeekReader<Decompressed>,
    /// How many lines have been read.
    count: u64,
}

pub(super) enum Line {
    Text(Vec<u8>),
    TooLong,
}

impl Lines {
    /// The lines of `reader`. They are decompressed if the first bytes are the start of gzip or zstd data.
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Result<Self, NdjsonError> {
        let unreadable = |error| NdjsonError::Unreadable { line: 1, error };
        let decompressed = Decompressed::new(PeekReader::new(reader)).map_err(unreadable)?;
        let compression = decompressed.compression();
        let mut reader = PeekReader::new(decompressed);
        match ForeignFormat::of(&mut reader, compression) {
            Ok(None) => Ok(Self { reader, count: 0 }),
            Ok(Some(format)) => Err(NdjsonError::ForeignFormat(ForeignInput { format, compression })),
            Err(error) => Err(unreadable(reader.get_ref().explain(error))),
        }
    }

    /// The number of the next line, from 1, and the line without its line end. `None` at the end of the input.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Line)>, ReadError> {
        let line = self.read().map_err(|error| self.reader.get_ref().explain(error))?;
        self.count += u64::from(line.is_some());
        Ok(line.map(|line| (self.count, line)))
    }

    /// How many lines have been read.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// How many bytes follow the compressed data and are neither compressed data nor padding. Call this after the last line.
    pub(super) fn trailing(&self) -> u64 {
        self.reader.get_ref().trailing()
    }

    /// Whether no further bytes are in memory, so that the next line may have to wait for input.
    pub(super) fn may_wait(&self) -> bool {
        self.reader.buffer().is_empty()
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        // Zero bytes are padding, or a hole in a log file that was truncated during a write.
        self.reader.skip_zeros()?;
        let mut line = Vec::new();
        // A line end has at most two bytes.
        let mut reader: Take<_> = Read::by_ref(&mut self.reader).take(MAX_LINE_BYTES as u64 + 2);
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let is_whole = line.pop_if(|byte| *byte == b'\n').is_some();
        if is_whole {
            line.pop_if(|byte| *byte == b'\r');
        } else {
            line.truncate(line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        }
        if line.len() > MAX_LINE_BYTES {
            if !is_whole {
                self.reader.skip_until(b'\n')?;
            }
            return Ok(Some(Line::TooLong));
        }
        // In joined files, the first line of each file may begin with a byte order mark.
        if line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(Line::Text(line)))
    }
}

#[cfg(test)]
#[cfg(feature = "ndjson-zstd")]
mod tests;

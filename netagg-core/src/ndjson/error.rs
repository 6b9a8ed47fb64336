//! Why an input cannot be read.

use std::io;

use tokio::task::JoinError;

use super::compression::{Compression, MAX_WINDOW_LOG};
use super::foreign_format::ForeignInput;

/// Why reading ended before the input did. The chunks before it have been returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NdjsonError {
    /// The input cannot be opened.
    #[error("it cannot be read: {0}")]
    Open(#[source] io::Error),
    /// The input is of another format. Nothing was read of it.
    #[error(transparent)]
    ForeignFormat(ForeignInput),
    /// A line cannot be read.
    #[error("line {line}: {error}")]
    Unreadable {
        /// The number of the line, from 1.
        line: u64,
        /// The reason.
        #[source]
        error: ReadError,
    },
    /// The input ends before the line to begin with.
    #[error("there are {lines} lines, and line {first_line} was to be the first")]
    TooFewLines {
        /// How many lines there are.
        lines: u64,
        /// The line to begin with.
        first_line: u64,
    },
    /// The thread that reads has panicked.
    #[error(transparent)]
    Panicked(JoinError),
}

/// Advice for data that were compressed well and have changed since.
const DAMAGED: &str = "fetch or copy the file once more";

/// Why bytes cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system has failed, or the first bytes cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[source] io::Error),
    /// The reader has failed after it has delivered bytes.
    #[error("{0}")]
    Other(#[source] io::Error),
    /// This build cannot decompress the data.
    #[error("this build reads no {}: decompress the data first", .0.as_str())]
    Unsupported(Compression),
    /// Compressed data are incomplete.
    #[error("the {} data end before they are complete: {DAMAGED}, or wait until it is written", .0.as_str())]
    Incomplete(Compression),
    /// Compressed data are not the data that the checksum was computed of.
    #[error("the {} data do not match their checksum: {DAMAGED}", .0.as_str())]
    WrongChecksum(Compression),
    /// Compressed data are not as the format wants them.
    #[error("the {} data are damaged ({error}): {DAMAGED}", .compression.as_str())]
    Damaged {
        /// How they are compressed.
        compression: Compression,
        /// What the decoder says.
        #[source]
        error: io::Error,
    },
    /// A frame of zstd needs more memory than any tool of zstd asks for by default.
    #[error(
        "a zstd frame has a window of more than {} MiB: unpack it with a tool that takes it, and pack it again with zstd \
         --long=27",
        1_u64 << (MAX_WINDOW_LOG - 20)
    )]
    WindowTooLarge,
    /// There is no memory for the window of a frame of zstd.
    #[error(
        "there is not enough memory for the window of a zstd frame: give this program more, or pack the data again where \
         there is more, by zstd --long=27"
    )]
    OutOfMemory,
    /// A frame of zstd needs the dictionary that it was compressed with.
    #[error("the zstd data are packed with a dictionary: unpack them first, by zstd -dc -D DICTIONARY FILE")]
    NeedsDictionary,
}

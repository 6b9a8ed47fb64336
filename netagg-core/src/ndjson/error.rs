//! Why an input cannot be read.

use std::io;

use tokio::task::JoinError;

use super::compression::{Compression, MAX_WINDOW_LOG};
use super::foreign_format::ForeignInput;

/// Why the reading ended before the end of the input. Earlier calls have returned the chunks before the error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NdjsonError {
    /// The input cannot be opened.
    #[error("the input cannot be read: {0}")]
    Open(#[source] io::Error),
    /// The input has another format. No line was read.
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
    /// The input ends before the first line that should be read.
    #[error("the input has {lines} lines, and reading should begin at line {first_line}")]
    TooFewLines {
        /// The number of lines in the input.
        lines: u64,
        /// The number of the first line that should be read.
        first_line: u64,
    },
    /// The thread that reads the input has panicked.
    #[error(transparent)]
    Panicked(JoinError),
}

/// Advice for data that were damaged after their compression.
const DAMAGED: &str = "fetch or copy the file again";

/// Why bytes cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system reported an error, or the first bytes cannot be read.
    #[error("the input cannot be read: {0}")]
    Io(#[source] io::Error),
    /// The reader failed after it had returned bytes.
    #[error("{0}")]
    Other(#[source] io::Error),
    /// This build cannot decompress the data.
    #[error("this build cannot read {}: decompress the data first", .0.as_str())]
    Unsupported(Compression),
    /// The compressed data are incomplete.
    #[error("the {} data end before they are complete: {DAMAGED}, or wait until the file is complete", .0.as_str())]
    Incomplete(Compression),
    /// The decompressed data do not match the checksum.
    #[error("the {} data do not match their checksum: {DAMAGED}", .0.as_str())]
    WrongChecksum(Compression),
    /// The compressed data break the rules of their format.
    #[error("the {} data are damaged ({error}): {DAMAGED}", .compression.as_str())]
    Damaged {
        /// The compression of the data.
        compression: Compression,
        /// The error of the decoder.
        #[source]
        error: io::Error,
    },
    /// A zstd frame has a window that is larger than any window of the zstd tool.
    #[error(
        "a zstd frame has a window of more than {} MiB: decompress it with a tool that accepts this window, and compress it \
         again with zstd --long=27",
        1_u64 << (MAX_WINDOW_LOG - 20)
    )]
    WindowTooLarge,
    /// There is not enough memory for the window of a zstd frame.
    #[error(
        "there is not enough memory for the window of a zstd frame: give this program more memory, or compress the data again \
         with zstd --long=27, on a machine with more memory"
    )]
    OutOfMemory,
    /// A zstd frame needs the dictionary of its compression.
    #[error("the zstd data are compressed with a dictionary: decompress them first, with zstd -dc -D DICTIONARY FILE")]
    NeedsDictionary,
}

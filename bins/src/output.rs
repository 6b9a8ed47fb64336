//! Stdout and stderr, which may be full, closed or stuck: no write panics, and none to stderr waits for long.
//!
//! `println!` and `eprintln!` panic when the stream cannot be written, so no program here uses them.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Failure;

/// How much of a command's answer is gathered before it is written.
const BUFFER: usize = 64 << 10;
/// A pipe that polls as writable takes a write of this size without blocking.
const PIECE: usize = 4_096;
/// How long a line waits for a reader of stderr that takes nothing.
const PATIENCE: Duration = Duration::from_millis(100);

static STDOUT: Mutex<Stdout> = Mutex::new(Stdout { buffer: Vec::new(), failure: None });
static STDERR: Mutex<Stderr> = Mutex::new(Stderr { is_torn: false, is_stuck: false });

/// Adds a line to the command's answer, as `println!` does. A failed write is reported by [`finish`].
macro_rules! outln {
    () => { $crate::output::print(format_args!("\n")) };
    ($($argument:tt)*) => {{
        $crate::output::print(format_args!($($argument)*));
        $crate::output::print(format_args!("\n"));
    }};
}

/// Writes a line to stderr, as `eprintln!` does. It is lost if stderr cannot be written.
macro_rules! noteln {
    ($($argument:tt)*) => {
        $crate::output::note(format_args!($($argument)*))
    };
}

pub(crate) use {noteln, outln};

struct Stdout {
    buffer: Vec<u8>,
    /// Why nothing more is written.
    failure: Option<io::Error>,
}

impl Stdout {
    fn write_out(&mut self) {
        if self.failure.is_none() {
            self.failure = write_all(io::stdout().as_fd(), &self.buffer, None).map_err(io::Error::from).err();
        }
        self.buffer.clear();
    }
}

/// Adds text to the command's answer.
pub(crate) fn print(text: impl fmt::Display) {
    let mut stdout = lock(&STDOUT);
    if stdout.failure.is_none() {
        // writing to a vector cannot fail
        let _ = write!(stdout.buffer, "{text}");
        if stdout.buffer.len() >= BUFFER {
            stdout.write_out();
        }
    }
}

/// Writes out the answer so far.
///
/// # Errors
/// When stdout cannot be written, also because its reader is gone.
pub(crate) fn flush() -> io::Result<()> {
    let mut stdout = lock(&STDOUT);
    stdout.write_out();
    // An `io::Error` cannot be cloned, and the failure stays.
    stdout.failure.as_ref().map_or(Ok(()), |failure| Err(io::Error::new(failure.kind(), failure.to_string())))
}

/// Whether the answer so far could be written. A command that goes on for long stops when it could not.
pub(crate) fn is_wanted() -> bool {
    flush().is_ok()
}

/// Writes out the answer. A reader that has seen enough, such as `head`, is no failure.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub(crate) fn finish() -> Result<(), Failure> {
    match flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

struct Stderr {
    /// The last line was written in part.
    is_torn: bool,
    /// The reader has taken nothing for [`PATIENCE`].
    is_stuck: bool,
}

/// Writes a line to stderr for a person. Unlike a line of the log it waits for a slow reader, such as a pager.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    let _stderr = lock(&STDERR);
    let _ = write_all(io::stderr().as_fd(), format!("{line}\n").as_bytes(), None);
}

/// Writes a whole line, its end included, to stderr, unless that cannot be written within [`PATIENCE`]. A reader that
/// was waited for in vain is not waited for again until it goes on.
///
/// # Errors
/// When the line is lost.
pub(crate) fn write_line(line: &[u8]) -> io::Result<()> {
    let mut state = lock(&STDERR);
    let patience = if state.is_stuck { Duration::ZERO } else { PATIENCE };
    let deadline = Some(Instant::now() + patience);
    let (stream, begun) = (io::stderr(), state.is_torn);
    let written = if begun {
        write_all(stream.as_fd(), &[b"\n", line].concat(), deadline)
    } else {
        write_all(stream.as_fd(), line, deadline)
    };
    state.is_stuck = written.as_ref().is_err_and(|cut| cut.error.kind() == io::ErrorKind::TimedOut);
    state.is_torn = match &written {
        Ok(()) => false,
        Err(cut) => begun || cut.written > 0,
    };
    written.map_err(io::Error::from)
}

/// A write that failed, perhaps in the middle.
#[derive(Debug)]
struct Cut {
    written: usize,
    error: io::Error,
}

impl From<Cut> for io::Error {
    fn from(cut: Cut) -> Self {
        cut.error
    }
}

/// Writes `bytes` past the standard library, which takes a stream that is not open for writing for one that is.
fn write_all(stream: BorrowedFd<'_>, bytes: &[u8], deadline: Option<Instant>) -> Result<(), Cut> {
    let mut written = 0;
    while written < bytes.len() {
        let cut = |error: io::Error| Cut { written, error };
        let piece = match deadline {
            Some(deadline) => {
                wait(stream, Some(deadline)).map_err(cut)?;
                PIECE
            }
            None => BUFFER,
        };
        let end = bytes.len().min(written + piece);
        match rustix::io::write(stream, &bytes[written..end]) {
            Ok(0) => return Err(cut(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            // Another process has made the stream non-blocking.
            Err(Errno::AGAIN) => wait(stream, deadline).map_err(cut)?,
            Err(error) => return Err(cut(error.into())),
        }
    }
    Ok(())
}

/// Waits until `stream` takes bytes, or its write fails at once.
fn wait(stream: BorrowedFd<'_>, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(stream, PollFlags::OUT)], timeout.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::INTR) => {}
            // The write tells the rest.
            _ => return Ok(()),
        }
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read};

    /// A pipe that takes nothing more.
    fn full() -> (PipeReader, io::PipeWriter) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let deadline = || Some(Instant::now());
        while write_all(writer.as_fd(), &[b'x'; PIECE], deadline()).is_ok() {}
        (reader, writer)
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for() {
        let (mut reader, writer) = full();
        let cut = write_all(writer.as_fd(), b"line\n", Some(Instant::now())).expect_err("there is no room");
        assert_eq!((cut.written, cut.error.kind()), (0, io::ErrorKind::TimedOut));
        reader.read_exact(&mut [0; 2 * PIECE]).expect("bytes");
        write_all(writer.as_fd(), b"line\n", Some(Instant::now())).expect("there is room again");
        drop(reader);
        let cut = write_all(writer.as_fd(), b"line\n", Some(Instant::now())).expect_err("the reader is gone");
        assert_eq!(cut.error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_stream_that_is_not_open_for_writing_is_an_error() {
        let stream = std::fs::File::open("/dev/null").expect("opened for reading");
        assert!(write_all(stream.as_fd(), b"line\n", None).is_err());
    }
}

//! Writes to stdout and stderr, which may be full, closed or blocked. No write panics, and no log line waits for long.
//!
//! `println!` and `eprintln!` panic when the stream cannot be written, so no program here uses them.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::failure::Failure;

/// How many bytes of output a command gathers before it writes them.
const BUFFER: usize = 64 << 10;
/// The size of a write that does not block on a pipe that polls as writable.
const PIECE: usize = 4_096;
/// How long a log line waits for a reader of stderr that does not read.
const PATIENCE: Duration = Duration::from_millis(100);

static STDOUT: Mutex<Stdout> = Mutex::new(Stdout { buffer: Vec::new(), failure: None });
static STDERR: Mutex<Stderr> = Mutex::new(Stderr { is_torn: false, is_stuck: false });

/// Adds a line to the output of the command, like `println!`. The program reports a failed write when it ends.
macro_rules! outln {
    () => { $crate::process::output::print(format_args!("\n")) };
    ($($argument:tt)*) => {{
        $crate::process::output::print(format_args!($($argument)*));
        $crate::process::output::print(format_args!("\n"));
    }};
}

/// Writes a line to stderr, like `eprintln!`. The line is lost if stderr cannot be written.
macro_rules! noteln {
    ($($argument:tt)*) => {
        $crate::process::output::note(format_args!($($argument)*))
    };
}

pub(crate) use {noteln, outln};

struct Stdout {
    buffer: Vec<u8>,
    /// The first failed write. After it, nothing more is written.
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

/// Adds text to the output of the command.
pub fn print(text: impl fmt::Display) {
    let mut stdout = lock(&STDOUT);
    if stdout.failure.is_none() {
        // Writing to a vector cannot fail.
        let _ = write!(stdout.buffer, "{text}");
        if stdout.buffer.len() >= BUFFER {
            stdout.write_out();
        }
    }
}

/// Writes the gathered output to stdout.
///
/// # Errors
/// When stdout cannot be written, also because its reader is gone.
pub fn flush() -> io::Result<()> {
    let mut stdout = lock(&STDOUT);
    stdout.write_out();
    // An `io::Error` cannot be cloned, and the failure must stay for the next call.
    stdout.failure.as_ref().map_or(Ok(()), |failure| Err(io::Error::new(failure.kind(), failure.to_string())))
}

/// Whether output to stdout is lost, because stdout is the null device. The Rust runtime opens the null device if stdout is
/// closed.
pub fn is_discarded() -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|stdout| stdout.metadata());
    let null = std::fs::metadata("/dev/null");
    matches!((stdout, null), (Ok(stdout), Ok(null)) if stdout.rdev() != 0 && stdout.rdev() == null.rdev())
}

/// Whether the output so far could be written. A command that runs for long stops if not.
pub fn is_wanted() -> bool {
    flush().is_ok()
}

/// Writes the rest of the output. It is no failure if the reader has closed the pipe, as `head` does.
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
    /// Whether the last line was written only in part.
    is_torn: bool,
    /// Whether the reader has read nothing for [`PATIENCE`].
    is_stuck: bool,
}

impl Stderr {
    fn write_line(&mut self, stream: BorrowedFd<'_>, line: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + if self.is_stuck { Duration::ZERO } else { PATIENCE };
        let was_torn = self.is_torn;
        let written = if was_torn {
            write_all(stream, &[b"\n", line].concat(), Some(deadline))
        } else {
            write_all(stream, line, Some(deadline))
        };
        self.is_stuck = written.as_ref().is_err_and(|cut| cut.error.kind() == io::ErrorKind::TimedOut);
        self.is_torn = written.as_ref().is_err_and(|cut| was_torn || cut.written > 0);
        written.map_err(io::Error::from)
    }
}

/// Writes a line to stderr for a person. Unlike a log line, it waits for a slow reader, such as a pager.
pub fn note(line: fmt::Arguments<'_>) {
    let line = format!("{line}\n");
    let _stderr = lock(&STDERR);
    let _ = write_all(io::stderr().as_fd(), line.as_bytes(), None);
}

/// Writes a whole line, with its line end, to stderr, if this is possible within [`PATIENCE`]. After a line was lost because
/// the reader did not read, later lines do not wait until the reader reads again.
///
/// # Errors
/// When the line is lost.
pub(crate) fn write_line(line: &[u8]) -> io::Result<()> {
    lock(&STDERR).write_line(io::stderr().as_fd(), line)
}

/// Makes panics write to stderr like log lines. The standard library would wait for a reader that does not read, and the
/// task that panicked would never end.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let mut text = format!("thread '{}' {panic}\n", thread.name().unwrap_or("unnamed"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text += &format!("{backtrace}\n");
        }
        let _ = write_line(text.as_bytes());
    }));
}

/// A write that failed, perhaps after a part of the bytes.
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

/// Writes `bytes` without the standard library, which reports no error if the stream is not open for writing.
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
            // Another process has set the stream to non-blocking.
            Err(Errno::AGAIN) => wait(stream, deadline).map_err(cut)?,
            Err(error) => return Err(cut(error.into())),
        }
    }
    Ok(())
}

/// Waits until a write to `stream` does not block: it writes bytes, or fails.
fn wait(stream: BorrowedFd<'_>, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(stream, PollFlags::OUT)], timeout.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::INTR) => {}
            // The following write returns any error.
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

    /// A full pipe.
    fn full() -> (PipeReader, io::PipeWriter) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let deadline = || Some(Instant::now());
        while write_all(writer.as_fd(), &[b'x'; PIECE], deadline()).is_ok() {}
        (reader, writer)
    }

    #[test]
    fn a_write_to_a_full_pipe_does_not_wait_after_its_deadline() {
        let (mut reader, writer) = full();
        let cut = write_all(writer.as_fd(), b"line\n", Some(Instant::now())).expect_err("the pipe is full");
        assert_eq!((cut.written, cut.error.kind()), (0, io::ErrorKind::TimedOut));
        reader.read_exact(&mut [0; 2 * PIECE]).expect("bytes");
        write_all(writer.as_fd(), b"line\n", Some(Instant::now())).expect("the pipe is no longer full");
        drop(reader);
        let cut = write_all(writer.as_fd(), b"line\n", Some(Instant::now())).expect_err("the reader is gone");
        assert_eq!(cut.error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_line_after_a_cut_line_starts_on_a_new_line() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut stderr = Stderr { is_torn: false, is_stuck: false };
        let long = [&[b'x'; 100_000][..], b"\n"].concat();
        assert_eq!(
            stderr.write_line(writer.as_fd(), &long).map_err(|error| error.kind()),
            Err(io::ErrorKind::TimedOut)
        );
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(stderr.write_line(writer.as_fd(), b"lost\n").is_err());
        }
        assert!(begun.elapsed() < 50 * PATIENCE, "later lines do not wait for the reader again");
        let mut cut = vec![0; 60_000];
        reader.read_exact(&mut cut).expect("bytes");
        stderr.write_line(writer.as_fd(), b"next\n").expect("the pipe has space");
        stderr.write_line(writer.as_fd(), b"last\n").expect("the pipe has space");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        assert!(rest.ends_with("x\nnext\nlast\n") && !rest.contains("lost"), "{rest}");
    }

    #[test]
    fn a_stream_that_is_not_open_for_writing_is_an_error() {
        let stream = std::fs::File::open("/dev/null").expect("opened for reading");
        assert!(write_all(stream.as_fd(), b"line\n", None).is_err());
    }
}

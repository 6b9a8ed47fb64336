//! Stdout and stderr, which may be full, closed or stuck: no write panics, and none to stderr waits for long.
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

/// How much of a command's answer is gathered before it is written.
const BUFFER: usize = 64 << 10;
/// A pipe that polls as writable takes a write of this size without blocking.
const PIECE: usize = 4_096;
/// How long a line waits for a reader of stderr that takes nothing.
const PATIENCE: Duration = Duration::from_millis(100);

static STDOUT: Mutex<Stdout> = Mutex::new(Stdout { buffer: Vec::new(), failure: None });
static STDERR: Mutex<Stderr> = Mutex::new(Stderr { is_torn: false, is_stuck: false });

/// Adds a line to the command's answer, as `println!` does. A failed write is reported when the program ends.
macro_rules! outln {
    () => { $crate::process::output::print(format_args!("\n")) };
    ($($argument:tt)*) => {{
        $crate::process::output::print(format_args!($($argument)*));
        $crate::process::output::print(format_args!("\n"));
    }};
}

/// Writes a line to stderr, as `eprintln!` does. It is lost if stderr cannot be written.
macro_rules! noteln {
    ($($argument:tt)*) => {
        $crate::process::output::note(format_args!($($argument)*))
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
pub fn print(text: impl fmt::Display) {
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
pub fn flush() -> io::Result<()> {
    let mut stdout = lock(&STDOUT);
    stdout.write_out();
    // An `io::Error` cannot be cloned, and the failure stays.
    stdout.failure.as_ref().map_or(Ok(()), |failure| Err(io::Error::new(failure.kind(), failure.to_string())))
}

/// Whether stdout keeps nothing: it is the null device, which also takes the place of a stdout that is closed.
pub fn is_discarded() -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|stdout| stdout.metadata());
    let null = std::fs::metadata("/dev/null");
    matches!((stdout, null), (Ok(stdout), Ok(null)) if stdout.rdev() != 0 && stdout.rdev() == null.rdev())
}

/// Whether the answer so far could be written. A command that goes on for long stops when it could not.
pub fn is_wanted() -> bool {
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

/// Writes a line to stderr for a person. Unlike a line of the log it waits for a slow reader, such as a pager.
pub fn note(line: fmt::Arguments<'_>) {
    let line = format!("{line}\n");
    let _stderr = lock(&STDERR);
    let _ = write_all(io::stderr().as_fd(), line.as_bytes(), None);
}

/// Writes a whole line, its end included, to stderr, unless that cannot be written within [`PATIENCE`]. A reader that
/// was waited for in vain is not waited for again until it goes on.
///
/// # Errors
/// When the line is lost.
pub(crate) fn write_line(line: &[u8]) -> io::Result<()> {
    lock(&STDERR).write_line(io::stderr().as_fd(), line)
}

/// Has a panic written to stderr as any line. The standard library would wait for a reader that stands still, and the
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
    fn a_line_after_one_that_was_cut_is_on_a_line_of_its_own() {
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
        assert!(begun.elapsed() < 50 * PATIENCE, "the reader is not waited for again and again");
        let mut cut = vec![0; 60_000];
        reader.read_exact(&mut cut).expect("bytes");
        stderr.write_line(writer.as_fd(), b"next\n").expect("there is room");
        stderr.write_line(writer.as_fd(), b"last\n").expect("there is room");
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

//! Events given by a person, one JSON object a line: read and judged on a thread of their own.

mod chunk;
mod format;
mod input;
mod left_out;
mod packed;
mod source;

use bytes::Bytes;
use indicatif::ProgressBar;
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{EventLimits, PartitionId, Record};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use input::Input;
pub(crate) use left_out::LeftOut;

use crate::Failure;
use chunk::{Chunk, GivenEvent, InvalidLine};
use input::{Line, Lines, MAX_LINE};

/// Chunks that are read ahead, and joined for a reader that comes late.
const AHEAD: usize = 4;

/// Lines, as they are read.
#[derive(Debug)]
pub(crate) struct Chunks {
    receiver: mpsc::Receiver<Result<Chunk, Failure>>,
    failure: Option<Failure>,
    reading: JoinHandle<()>,
}

impl Chunks {
    /// The lines that are there, or else the next ones; `None` after the last one.
    ///
    /// # Errors
    /// When the input cannot be read; what was read before has been returned.
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(mut chunk) = self.receiver.recv().await.transpose()? else {
            // Else a reader that has panicked would look like the end of the input.
            return match (&mut self.reading).await {
                Ok(()) => Ok(None),
                Err(error) => Err(Failure::Failed(error.into())),
            };
        };
        for _ in 1..AHEAD {
            match self.receiver.try_recv() {
                Ok(Ok(more)) => chunk.append(more),
                Ok(Err(failure)) => self.failure = Some(failure),
                Err(_) => break,
            }
        }
        Ok(Some(chunk))
    }
}

/// Reads `input` from the line `first` on and judges each line as if it were received now. `bar` follows the bytes read, and
/// `piped` is the command that reads stdin, for advice.
pub(crate) fn read(input: Input, first: u64, limits: EventLimits, bar: ProgressBar, piped: &'static str) -> Chunks {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        netagg_core::crash::in_task("lines");
        let sent = match input.open(&bar, piped) {
            Ok(lines) => Reader { lines, judge: Judge::new(limits), sender: &sender }.run(&input.name(), first),
            Err(failure) => Err(Ended::Failed(failure)),
        };
        if let Err(Ended::Failed(failure)) = sent {
            // nobody is left to hear it
            let _ = sender.blocking_send(Err(failure));
        }
    });
    Chunks { receiver, failure: None, reading }
}

/// Why reading ends before the input does.
enum Ended {
    Failed(Failure),
    Unwanted,
}

struct Reader<'a> {
    lines: Lines,
    judge: Judge,
    sender: &'a mpsc::Sender<Result<Chunk, Failure>>,
}

impl Reader<'_> {
    fn run(mut self, name: &str, first: u64) -> Result<(), Ended> {
        let mut chunk = Chunk::default();
        loop {
            let (number, line) = match self.lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    self.send(&mut chunk)?;
                    let at = self.lines.count() + 1;
                    return Err(Ended::Failed(Failure::Failed(format!("{name}:{at}: {error}").into())));
                }
            };
            if number >= first {
                self.judge.take(number, line, &mut chunk);
            }
            if chunk.is_full() || self.lines.may_wait() {
                self.send(&mut chunk)?;
            }
        }
        let count = self.lines.count();
        let trailing = self.lines.trailing();
        if trailing > 0 {
            let reason = format!("{trailing} bytes after the end of the packed data are neither gzip nor zstd");
            chunk.invalid.push(InvalidLine { number: count + 1, kind: "trailing_bytes", reason });
            chunk.end = count + 1;
        }
        self.send(&mut chunk)?;
        if first > count + 1 {
            let reason = format!("--from-line {first}: {name} has {count} lines; accepted: 1 to {}", count + 1);
            return Err(Ended::Failed(Failure::Usage(reason)));
        }
        Ok(())
    }

    fn send(&self, chunk: &mut Chunk) -> Result<(), Ended> {
        if chunk.events.is_empty() && chunk.invalid.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(std::mem::take(chunk))).map_err(|_| Ended::Unwanted)
    }
}

/// Tells events from what is none, as the services do.
struct Judge {
    limits: EventLimits,
    partition: PartitionId,
}

impl Judge {
    fn new(limits: EventLimits) -> Self {
        Self { limits, partition: PartitionId::new("input", 0) }
    }

    fn take(&self, number: u64, line: Line, chunk: &mut Chunk) {
        chunk.end = number + 1;
        let line = match line {
            Line::TooLong => {
                let reason = format!("a line of more than {MAX_LINE} bytes");
                chunk.invalid.push(InvalidLine { number, kind: "too_long", reason });
                return;
            }
            Line::Text(line) if line.trim_ascii().is_empty() => return,
            Line::Text(line) => Bytes::from(line),
        };
        chunk.bytes += line.len();
        let record = Record {
            partition: self.partition.clone(),
            offset: number as i64,
            timestamp: Some(SystemClock.now().into()),
            key: None,
            value: Some(line.clone()),
            headers: Vec::new(),
        };
        match self.limits.admit(&record) {
            Ok(event) => chunk.events.push(GivenEvent { event, line }),
            Err(reason) => {
                chunk.invalid.push(InvalidLine { number, kind: reason.kind().as_str(), reason: reason.to_string() })
            }
        }
    }
}

//! The file or stream that a command reads events from.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use indicatif::ProgressBar;
use netagg_core::EventLimits;
use netagg_core::ndjson::{Chunk, Chunks, NdjsonError, NdjsonReader, ReadError};

use crate::Failure;

/// A file, or stdin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The file at this path.
    File(PathBuf),
    /// The stream on stdin.
    Stdin,
}

impl From<OsString> for Input {
    /// The input at `path`; `-` is stdin.
    fn from(path: OsString) -> Self {
        if path == "-" { Self::Stdin } else { Self::File(path.into()) }
    }
}

impl Input {
    /// The name of the input in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "stdin".to_owned(),
        }
    }

    /// The size of the input, if it is a file that can be read more than once.
    pub(crate) fn size(&self) -> Option<u64> {
        let Self::File(path) = self else { return None };
        path.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
    }

    /// Reads the events from the line `first_line` on. `bar` shows the bytes read. `piped` is the command that reads stdin;
    /// error messages recommend it.
    pub(crate) fn read(self, limits: EventLimits, first_line: u64, bar: ProgressBar, piped: &'static str) -> Events {
        let input = self.clone();
        let chunks = NdjsonReader::new(limits).with_first_line(first_line).read(move || input.open(&bar));
        Events { chunks, input: self, piped }
    }

    fn open(&self, bar: &ProgressBar) -> io::Result<Box<dyn Read + Send>> {
        let Self::File(path) = self else { return Ok(Box::new(bar.wrap_read(io::stdin()))) };
        let file = File::open(path)?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(io::Error::other("it is a directory; accepted: a file, or - for stdin"));
        }
        Ok(Box::new(bar.wrap_read(file)))
    }
}

/// The events of an input, read in chunks.
#[derive(Debug)]
pub(crate) struct Events {
    chunks: Chunks,
    input: Input,
    piped: &'static str,
}

impl Events {
    /// The next lines; `None` after the last line.
    ///
    /// # Errors
    /// When the input cannot be read. The error is [`Failure::Usage`] if no line was read before.
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        self.chunks.next().await.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: NdjsonError) -> Failure {
        let name = self.input.name();
        match error {
            NdjsonError::ForeignFormat(foreign) => {
                let command = foreign.conversion(matches!(self.input, Input::File(_)));
                let advice = command.map(|command| format!(". Convert it: {command} | {}", self.piped));
                Failure::Usage(format!("{name}: {foreign}{}", advice.unwrap_or_default()))
            }
            NdjsonError::TooFewLines { lines, first_line } => Failure::Usage(format!(
                "--from-line {first_line}: {name} has {lines} lines; accepted: 1 to {}",
                lines + 1
            )),
            NdjsonError::Unreadable { line, error: ReadError::Unsupported(_) } => {
                let advice = "decompress it first: zstd -dc FILE | … --input -";
                Failure::Failed(
                    format!(
                        "{name}:{line}: the input cannot be read: this build of the demonstration has no zstd; {advice}"
                    )
                    .into(),
                )
            }
            NdjsonError::Unreadable { line, error } => Failure::Failed(format!("{name}:{line}: {error}").into()),
            NdjsonError::Panicked(error) => Failure::Failed(error.into()),
            error => Failure::Usage(format!("{name}: {error}")),
        }
    }
}

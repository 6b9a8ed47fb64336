//! Where lines come from, unpacked.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Take};
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use crate::Failure;

/// The longest line taken; a message of its size would not be.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// How much is read at a time.
const BUFFER: usize = 256 << 10;

/// A file, or stdin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Input {
    /// The file at this path.
    File(PathBuf),
    /// What is piped in.
    Stdin,
}

impl From<OsString> for Input {
    /// A path; `-` is stdin.
    fn from(path: OsString) -> Self {
        if path == "-" { Self::Stdin } else { Self::File(path.into()) }
    }
}

impl Input {
    /// How a person knows it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "stdin".to_owned(),
        }
    }

    /// Its size, if it is a file that can be read more than once.
    pub(crate) fn size(&self) -> Option<u64> {
        let Self::File(path) = self else { return None };
        path.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
    }

    /// Opens it; `bar` follows how much of it has been read.
    pub(super) fn open(&self, bar: &ProgressBar) -> Result<Lines, Failure> {
        let unusable = |reason: String| Failure::Usage(format!("{}: it cannot be read: {reason}", self.name()));
        let reader: Box<dyn Read + Send> = match self {
            Self::File(path) => {
                let file = File::open(path).map_err(|error| unusable(error.to_string()))?;
                if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                    return Err(unusable("it is a directory; accepted: a file, or - for stdin".to_owned()));
                }
                Box::new(bar.wrap_read(file))
            }
            Self::Stdin => Box::new(bar.wrap_read(io::stdin())),
        };
        Lines::new(reader).map_err(|error| unusable(error.to_string()))
    }
}

/// Lines, one after the other.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    packing: Packing,
    /// How many have been read.
    count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

pub(super) enum Line {
    Text(Vec<u8>),
    TooLong,
}

impl Lines {
    /// Those of `reader`, which is unpacked if it starts like gzip or zstd.
    fn new(mut reader: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut start = Vec::new();
        Read::by_ref(&mut reader).take(4).read_to_end(&mut start)?;
        let packing = match *start.as_slice() {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            // a frame, or one to skip
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Packing::Zstd,
            _ => Packing::None,
        };
        let whole = Cursor::new(start).chain(reader);
        let unpacked: Box<dyn Read + Send> = match packing {
            Packing::None => Box::new(whole),
            Packing::Gzip => Box::new(MultiGzDecoder::new(whole)),
            Packing::Zstd => Box::new(zstd::Decoder::new(whole)?),
        };
        Ok(Self { reader: BufReader::with_capacity(BUFFER, unpacked), packing, count: 0 })
    }

    /// The next line without its end, and its number, from 1; `None` at the end of the input.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Line)>, String> {
        let line = self.read().map_err(|error| match self.packing {
            Packing::None => error.to_string(),
            Packing::Gzip => format!("the gzip data is cut or corrupt: {error}"),
            Packing::Zstd => format!("the zstd data is cut or corrupt: {error}"),
        })?;
        self.count += u64::from(line.is_some());
        Ok(line.map(|line| (self.count, line)))
    }

    /// How many lines have been read.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Whether the next line is not there yet, as far as is known without waiting for it.
    pub(super) fn may_wait(&self) -> bool {
        self.reader.buffer().is_empty()
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        let mut line = Vec::new();
        // the line's end may have two bytes
        let mut reader: Take<_> = Read::by_ref(&mut self.reader).take(MAX_LINE as u64 + 2);
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let is_whole = line.pop_if(|byte| *byte == b'\n').is_some();
        if is_whole {
            line.pop_if(|byte| *byte == b'\r');
        }
        if line.len() > MAX_LINE {
            if !is_whole {
                self.reader.skip_until(b'\n')?;
            }
            return Ok(Some(Line::TooLong));
        }
        if self.count == 0 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(Line::Text(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(bytes: Vec<u8>) -> (Vec<String>, Option<String>) {
        let mut lines = Lines::new(Box::new(Cursor::new(bytes))).expect("a start");
        let mut read = Vec::new();
        loop {
            match lines.next() {
                Ok(None) => return (read, None),
                Ok(Some((number, line))) => {
                    assert_eq!(number, read.len() as u64 + 1);
                    read.push(match line {
                        Line::Text(text) => String::from_utf8(text).expect("UTF-8"),
                        Line::TooLong => "too long".to_owned(),
                    });
                }
                Err(error) => return (read, Some(error)),
            }
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("written");
        encoder.finish().expect("finished")
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.include_checksum(true).expect("a checksum");
        encoder.write_all(text).expect("written");
        encoder.finish().expect("finished")
    }

    #[test]
    fn ends_of_lines_and_a_byte_order_mark_are_no_part_of_them() {
        let (read, error) = lines("\u{feff}one\r\n\r\n two\r \n\u{feff}last".into());
        assert_eq!((read, error), (["one", "", " two\r ", "\u{feff}last"].map(str::to_owned).into(), None));
        assert_eq!(lines(Vec::new()), (vec![], None));
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped() {
        let longest = "x".repeat(MAX_LINE);
        for (end, len) in [("\n", 0), ("\r\n", 0), ("\n", 1), ("\r\n", 1), ("\n", 2), ("\n", 3 * MAX_LINE)] {
            let (read, error) = lines(format!("{longest}{}{end}next", "x".repeat(len)).into());
            let first = if len == 0 { &longest } else { "too long" };
            assert!(read == [first, "next"] && error.is_none(), "{len} more, {end:?}: {error:?}");
        }
        assert_eq!(lines(format!("{longest}xxx").into()).0, ["too long"]);
    }

    #[test]
    fn packed_lines_are_the_same_also_in_several_pieces() {
        let (first, second) = (&b"one\ntw"[..], &b"o\nthree\n"[..]);
        let expected = (["one", "two", "three"].map(str::to_owned).to_vec(), None);
        let empty_frame = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9].to_vec();
        for packed in [
            [first, second].concat(),
            gzip(&[first, second].concat()),
            [gzip(first), gzip(second)].concat(),
            zstd(&[first, second].concat()),
            [zstd(first), zstd(second)].concat(),
            [empty_frame, zstd(first), zstd(second)].concat(),
        ] {
            assert_eq!(lines(packed), expected);
        }
    }

    #[test]
    fn packed_data_that_is_cut_or_corrupt_is_an_error() {
        let text: Vec<u8> = (0..60_000).flat_map(|number: u32| format!("{}\n", number * number).into_bytes()).collect();
        for packed in [gzip(&text), zstd(&text)] {
            let half = packed.len() / 2;
            let (read, error) = lines(packed[..half].to_vec());
            assert!(error.is_some_and(|error| error.contains("cut or corrupt")));
            assert!((1..60_000).contains(&read.len()), "{} lines before the cut", read.len());
            let mut corrupt = packed;
            corrupt[half] ^= 0xff;
            assert!(lines(corrupt).1.is_some_and(|error| error.contains("cut or corrupt")));
        }
    }
}

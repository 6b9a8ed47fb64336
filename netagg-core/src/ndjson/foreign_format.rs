//! Recognises other formats by the first bytes of the input, so that the reader names the format instead of rejecting each line.

use std::fmt;
use std::io::{self, Read};

use serde::de::IgnoredAny;
use serde_json::{Deserializer, from_slice};

use super::compression::Compression;
use super::peek_reader::PeekReader;

/// The number of first bytes that are examined.
const START: usize = 4 << 10;

/// A format that is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignFormat {
    /// A description of the input, which completes the sentence "it is …".
    name: &'static str,
    /// The command that converts the input. The command reads stdin, unless it contains `FILE`.
    convert: Option<&'static str>,
}

const fn foreign(name: &'static str, convert: &'static str) -> ForeignFormat {
    ForeignFormat { name, convert: Some(convert) }
}

/// Formats by their first bytes. A longer start comes before a shorter start of the same bytes.
const BY_START: &[(&[u8], ForeignFormat)] = &[
    (b"\xfd7zXZ\0", foreign("compressed with xz", "xz -dc")),
    (b"\x5d\0\0", foreign("compressed with lzma", "xz -dc")),
    (b"BZh", foreign("compressed with bzip2", "bzip2 -dc")),
    (b"\x04\x22\x4d\x18", foreign("compressed with lz4", "lz4 -dc")),
    (b"\x02\x21\x4c\x18", foreign("compressed with lz4", "lz4 -dc")),
    (b"\x89LZO\0\r\n\x1a\n", foreign("compressed with lzop", "lzop -dc")),
    (b"LZIP\x01", foreign("compressed with lzip", "lzip -dc")),
    (b"\x1f\x9d", foreign("compressed with compress", "gzip -dc")),
    (b"\x1f\xa0", foreign("compressed with compress", "gzip -dc")),
    (b"\x1f\x1e", foreign("compressed with pack", "gzip -dc")),
    (b"\x78\x01", foreign("compressed with zlib", "pigz -dc")),
    (b"\x78\x9c", foreign("compressed with zlib", "pigz -dc")),
    (b"\x78\xda", foreign("compressed with zlib", "pigz -dc")),
    (b"\xff\x06\0\0sNaPpY", foreign("compressed with snappy", "snzip -dc")),
    (b"PK\x03\x04", foreign("a zip archive", "unzip -p FILE")),
    (b"PK\x05\x06", foreign("a zip archive without a file", "unzip -p FILE")),
    (b"PK\x07\x08", foreign("a zip archive in several files", "unzip -p FILE")),
    (b"7z\xbc\xaf\x27\x1c", foreign("a 7z archive", "7z x -so FILE")),
    (b"Rar!\x1a\x07", foreign("a rar archive", "unrar p -inul FILE")),
    (b"PAR1", foreign("a Parquet file", "duckdb -c \"COPY (FROM 'FILE') TO '/dev/stdout' (FORMAT json)\"")),
    (b"Obj\x01", foreign("an Avro file", "avro-tools tojson FILE")),
    (b"ORC", foreign("an ORC file", "orc-contents FILE")),
    // A start of UTF-32 also begins like UTF-16, so UTF-32 comes first.
    (b"\xff\xfe\0\0", foreign("text in UTF-32", "iconv -f UTF-32 -t UTF-8")),
    (b"\0\0\xfe\xff", foreign("text in UTF-32", "iconv -f UTF-32 -t UTF-8")),
    (b"\xff\xfe", foreign("text in UTF-16", "iconv -f UTF-16 -t UTF-8")),
    (b"\xfe\xff", foreign("text in UTF-16", "iconv -f UTF-16 -t UTF-8")),
];

/// The position and the bytes of the mark of a tar archive.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Formats of data that are compressed twice.
const RECOMPRESSED: [(Compression, ForeignFormat); 2] = [
    (Compression::Gzip, foreign("compressed with gzip", "gzip -dc")),
    (Compression::Zstd, foreign("compressed with zstd", "zstd -dc")),
];

const ARRAY: ForeignFormat = foreign("a JSON array", "jq -c '.[]'");
const SEVERAL_LINES: ForeignFormat = foreign("JSON with an object over several lines", "jq -c .");
const SEVERAL_OBJECTS: ForeignFormat = foreign("JSON with several objects on a line", "jq -c .");
const COMMAS: ForeignFormat = foreign("JSON with a comma after each line", "sed 's/,[[:space:]]*$//'");
const SEQUENCE: ForeignFormat = foreign("a JSON text sequence (RFC 7464)", "tr -d '\\036'");
const CSV: ForeignFormat = foreign("CSV", "mlr --icsv --ojsonl cat");
const MARKUP: ForeignFormat =
    ForeignFormat { name: "HTML or XML, perhaps an error message saved as a file", convert: None };
const UNKNOWN: ForeignFormat = ForeignFormat { name: "not text in UTF-8, and of an unknown format", convert: None };

impl ForeignFormat {
    /// The format of `input`, which was decompressed from `compression`, if the format is not accepted. Waits only for the end of
    /// the first line that is not blank. If this line does not end its object, waits for the end of the second line.
    pub(super) fn of<R: Read>(input: &mut PeekReader<R>, compression: Option<Compression>) -> io::Result<Option<Self>> {
        let mut wanted = 1;
        loop {
            let start = input.peek(wanted)?;
            if start.len() < wanted || start.len() >= START || is_enough(start) {
                return Ok(recognise(&start[..start.len().min(START)], compression));
            }
            wanted = start.len() + 1;
        }
    }

    /// A description of the format, such as `compressed with xz` or `a JSON array`.
    pub fn name(self) -> &'static str {
        self.name
    }
}

/// An input that is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignInput {
    /// The format, after decompression.
    pub format: ForeignFormat,
    /// The compression of the input.
    pub compression: Option<Compression>,
}

impl ForeignInput {
    /// A shell command that converts the input to accepted lines, if the format has such a command. If the input `is_file`, the
    /// command reads the file `FILE`. Otherwise it reads standard input if possible; `…` then stands for the command before it.
    pub fn conversion(&self, is_file: bool) -> Option<String> {
        let convert = self.format.convert?;
        Some(match self.compression {
            _ if convert.contains("FILE") => convert.to_owned(),
            Some(compression) => format!("{} -dc FILE | {convert}", compression.as_str()),
            None if is_file => format!("{convert} <FILE"),
            None => format!("… | {convert}"),
        })
    }
}

impl fmt::Display for ForeignInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(compression) = self.compression {
            write!(f, "the {} data contain another format: ", compression.as_str())?;
        }
        write!(
            f,
            "it is {}; accepted: one JSON object per line, in UTF-8, plain or compressed with gzip or zstd",
            self.format.name
        )
    }
}

impl std::error::Error for ForeignInput {}

/// The lines that are not blank. The last line may continue after `start`.
fn lines(start: &[u8]) -> impl Iterator<Item = &[u8]> {
    start.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_blank(line))
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0)
}

fn is_enough(start: &[u8]) -> bool {
    let mut lines = lines(without_mark(start)).filter(|line| line.ends_with(b"\n"));
    lines.next().is_some_and(|first| !is_unfinished(first) || lines.next().is_some())
}

/// Whether `line` begins an object that does not end in this line.
fn is_unfinished(line: &[u8]) -> bool {
    line.ends_with(b"\n")
        && line.trim_ascii_start().starts_with(b"{")
        && from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

fn without_mark(start: &[u8]) -> &[u8] {
    start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start)
}

fn recognise(start: &[u8], compression: Option<Compression>) -> Option<ForeignFormat> {
    let by_start = BY_START.iter().find(|(first, _)| start.starts_with(first)).map(|(_, foreign)| *foreign);
    by_start.or_else(|| recompressed(start, compression)).or_else(|| tar(start)).or_else(|| wide(start)).or_else(|| {
        let text = without_mark(start);
        let text = &text[text.iter().position(|byte| !byte.is_ascii_whitespace() && *byte != 0)?..];
        json(text).or_else(|| other_text(text))
    })
}

fn recompressed(start: &[u8], compression: Option<Compression>) -> Option<ForeignFormat> {
    compression?;
    let inner = Compression::of(start)?;
    RECOMPRESSED.iter().find(|(compression, _)| *compression == inner).map(|(_, foreign)| *foreign)
}

fn tar(start: &[u8]) -> Option<ForeignFormat> {
    let (at, mark) = TAR;
    start.get(at..)?.starts_with(mark).then_some(foreign("a tar archive", "tar -xOf -"))
}

/// Recognises text with 2 or 4 bytes per character and without a byte order mark. JSON begins with two ASCII characters.
fn wide(start: &[u8]) -> Option<ForeignFormat> {
    match *start {
        [1..=0x7f, 0, 0, 0, 1..=0x7f, 0, 0, 0, ..] => Some(foreign("text in UTF-32", "iconv -f UTF-32LE -t UTF-8")),
        [0, 0, 0, 1..=0x7f, 0, 0, 0, 1..=0x7f, ..] => Some(foreign("text in UTF-32", "iconv -f UTF-32BE -t UTF-8")),
        [1..=0x7f, 0, 1..=0x7f, 0, ..] => Some(foreign("text in UTF-16", "iconv -f UTF-16LE -t UTF-8")),
        [0, 1..=0x7f, 0, 1..=0x7f, ..] => Some(foreign("text in UTF-16", "iconv -f UTF-16BE -t UTF-8")),
        _ => None,
    }
}

fn json(text: &[u8]) -> Option<ForeignFormat> {
    match text.first()? {
        b'[' => matches!(text[1..].trim_ascii_start().first(), None | Some(b'{' | b']')).then_some(ARRAY),
        0x1e => Some(SEQUENCE),
        b'{' => {
            let mut objects = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
            let mut lines = lines(text);
            if lines.next().is_some_and(is_unfinished) {
                // If the next line begins another object, the end of the first line is missing: this is not another format.
                let continues = lines.next().is_some_and(|second| !second.trim_ascii_start().starts_with(b"{"));
                return continues.then_some(SEVERAL_LINES);
            }
            objects.next()?.ok()?;
            let line = text[objects.byte_offset()..].split(|byte| *byte == b'\n').next()?.trim_ascii_start();
            match line.first()? {
                b'{' => Some(SEVERAL_OBJECTS),
                b',' if is_blank(&line[1..]) => Some(COMMAS),
                _ => None,
            }
        }
        _ => None,
    }
}

fn other_text(text: &[u8]) -> Option<ForeignFormat> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let has = |word: &[u8]| line.windows(word.len()).any(|part| part == word);
    match line.first()? {
        b'{' => None,
        b'<' => Some(MARKUP),
        _ if has(b"event_id") && has(b"source_id") => Some(CSV),
        _ => {
            // Zeros at the end are padding, and the examined start may end within a character.
            let end = line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let is_text = !line[..end].contains(&0)
                && std::str::from_utf8(&line[..end]).map_or_else(|error| error.error_len().is_none(), |_| true);
            (!is_text).then_some(UNKNOWN)
        }
    }
}

//! Decompresses gzip and zstd data.

use std::io::{self, ErrorKind, Read};

use flate2::bufread::GzDecoder;

use super::compression::Compression;
#[cfg(feature = "ndjson-zstd")]
use super::compression::MAX_WINDOW_LOG;
use super::error::ReadError;
use super::peek_reader::PeekReader;

/// The source of the bytes.
type Raw = PeekReader<Box<dyn Read + Send>>;

/// A reader that decompresses its input, if the input is compressed: all consecutive members and frames. Zero bytes after a
/// member or a frame are padding, such as from tapes or from copies in blocks.
pub(super) struct Decompressed {
    part: Part,
    compression: Option<Compression>,
    /// How many bytes after the last part are neither compressed data nor padding.
    trailing: u64,
}

enum Part {
    Plain(Raw),
    /// A member of a gzip file.
    Gzip(GzDecoder<Raw>),
    /// A frame of a zstd file.
    #[cfg(feature = "ndjson-zstd")]
    Zstd(zstd::Decoder<'static, Raw>),
    /// After the last part.
    End,
}

impl Part {
    fn new(raw: Raw, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip => Self::Gzip(GzDecoder::new(raw)),
            #[cfg(not(feature = "ndjson-zstd"))]
            Compression::Zstd => {
                drop(raw);
                return Err(ErrorKind::Unsupported.into());
            }
            #[cfg(feature = "ndjson-zstd")]
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(raw)?.single_frame();
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Self::Zstd(decoder)
            }
        })
    }
}

impl Decompressed {
    /// A reader of the decompressed bytes of `raw`.
    pub(super) fn new(raw: Raw) -> Result<Self, ReadError> {
        Self::try_new(raw).map_err(|error| match error.kind() {
            ErrorKind::Unsupported if !cfg!(feature = "ndjson-zstd") => ReadError::Unsupported(Compression::Zstd),
            _ => ReadError::Io(error),
        })
    }

    fn try_new(mut raw: Raw) -> io::Result<Self> {
        let compression = Compression::of(raw.peek(1)?);
        // Wait for more bytes only if they may be the start of compressed data.
        let compression = match (compression, raw.buffer().first()) {
            (None, Some(0x1f | 0x28 | 0x50..=0x5f)) => Compression::of(raw.peek(Compression::MAGIC)?),
            _ => compression,
        };
        let part = match compression {
            Some(compression) => Part::new(raw, compression)?,
            None => Part::Plain(raw),
        };
        Ok(Self { part, compression, trailing: 0 })
    }

    /// The compression of the first bytes.
    pub(super) fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// How many bytes follow the compressed data and are neither compressed data nor padding.
    pub(super) fn trailing(&self) -> u64 {
        self.trailing
    }

    /// Begins the next part, after the current part has ended.
    fn next_part(&mut self) -> io::Result<()> {
        let mut raw = match std::mem::replace(&mut self.part, Part::End) {
            Part::Gzip(decoder) => decoder.into_inner(),
            #[cfg(feature = "ndjson-zstd")]
            Part::Zstd(decoder) => decoder.finish(),
            Part::Plain(_) | Part::End => return Ok(()),
        };
        raw.skip_zeros()?;
        match Compression::of(raw.peek(Compression::MAGIC)?) {
            Some(compression) => self.part = Part::new(raw, compression)?,
            None => self.trailing = io::copy(&mut raw, &mut io::sink())?,
        }
        Ok(())
    }

    /// The reason of `error`, which has ended the reading.
    pub(super) fn explain(&self, error: io::Error) -> ReadError {
        if error.raw_os_error().is_some() {
            return ReadError::Io(error);
        }
        match &self.part {
            Part::Gzip(_) => explain_gzip(error),
            #[cfg(feature = "ndjson-zstd")]
            Part::Zstd(_) => explain_zstd(error),
            #[cfg(not(feature = "ndjson-zstd"))]
            Part::End if error.kind() == ErrorKind::Unsupported => ReadError::Unsupported(Compression::Zstd),
            Part::Plain(_) | Part::End => ReadError::Other(error),
        }
    }
}

impl Read for Decompressed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.part {
                Part::Plain(raw) => return raw.read(into),
                Part::Gzip(decoder) => decoder.read(into),
                #[cfg(feature = "ndjson-zstd")]
                Part::Zstd(decoder) => decoder.read(into),
                Part::End => return Ok(0),
            }?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            self.next_part()?;
        }
    }
}

fn explain_gzip(error: io::Error) -> ReadError {
    let compression = Compression::Gzip;
    match error.kind() {
        ErrorKind::UnexpectedEof => ReadError::Incomplete(compression),
        _ if error.to_string().contains("checksum") => ReadError::WrongChecksum(compression),
        _ => ReadError::Damaged { compression, error },
    }
}

#[cfg(feature = "ndjson-zstd")]
fn explain_zstd(error: io::Error) -> ReadError {
    let compression = Compression::Zstd;
    if error.kind() == ErrorKind::UnexpectedEof {
        return ReadError::Incomplete(compression);
    }
    // The library distinguishes these errors only by their texts.
    match error.to_string().as_str() {
        "Restored data doesn't match checksum" => ReadError::WrongChecksum(compression),
        "Frame requires too much memory for decoding" => ReadError::WindowTooLarge,
        "Allocation error : not enough memory" => ReadError::OutOfMemory,
        "Dictionary mismatch" => ReadError::NeedsDictionary,
        _ => ReadError::Damaged { compression, error },
    }
}

//! Unpacks gzip and zstd.

use std::io::{self, ErrorKind, Read};

use flate2::bufread::GzDecoder;

use super::source::Source;

/// Where bytes come from.
pub(super) type Raw = Source<Box<dyn Read + Send>>;

/// The largest window of a zstd frame: 2 GiB, the most that the zstd tool packs with. Memory is taken as data fill it.
const MAX_WINDOW_LOG: u32 = 31;

/// How bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// Longest start that tells one.
    pub(super) const MAGIC: usize = 4;

    /// The packing of bytes that begin with `start`.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // a frame, or one to skip
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Bytes, unpacked if they are packed: all members and frames that follow each other. Zero bytes after one of them are
/// padding, as of tapes and of copies by blocks.
pub(super) struct Unpacked {
    part: Part,
    packing: Option<Packing>,
    /// How many bytes after the last part are neither packed data nor padding.
    trailing: u64,
}

enum Part {
    Plain(Raw),
    /// A member of a gzip file.
    Gzip(GzDecoder<Raw>),
    /// A frame.
    #[cfg(feature = "services")]
    Zstd(zstd::Decoder<'static, Raw>),
    /// After the last part.
    End,
}

impl Part {
    fn new(raw: Raw, packing: Packing) -> io::Result<Self> {
        Ok(match packing {
            Packing::Gzip => Self::Gzip(GzDecoder::new(raw)),
            #[cfg(not(feature = "services"))]
            Packing::Zstd => {
                let reason = "the demonstration alone reads no zstd; unpack it on the way: zstd -dc FILE | … --input -";
                return Err(io::Error::new(ErrorKind::Unsupported, reason));
            }
            #[cfg(feature = "services")]
            Packing::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(raw)?.single_frame();
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Self::Zstd(decoder)
            }
        })
    }
}

impl Unpacked {
    /// The bytes of `raw`.
    pub(super) fn new(mut raw: Raw) -> io::Result<Self> {
        let packing = Packing::of(raw.peek(1)?);
        // More is waited for only while it may tell the packing.
        let packing = match (packing, raw.buffer().first()) {
            (None, Some(0x1f | 0x28 | 0x50..=0x5f)) => Packing::of(raw.peek(Packing::MAGIC)?),
            _ => packing,
        };
        let part = match packing {
            Some(packing) => Part::new(raw, packing)?,
            None => Part::Plain(raw),
        };
        Ok(Self { part, packing, trailing: 0 })
    }

    /// How the first bytes are packed.
    pub(super) fn packing(&self) -> Option<Packing> {
        self.packing
    }

    /// How many bytes follow the packed data and are none.
    pub(super) fn trailing(&self) -> u64 {
        self.trailing
    }

    /// Goes on with the part after the one that has ended.
    fn next_part(&mut self) -> io::Result<()> {
        let mut raw = match std::mem::replace(&mut self.part, Part::End) {
            Part::Gzip(decoder) => decoder.into_inner(),
            #[cfg(feature = "services")]
            Part::Zstd(decoder) => decoder.finish(),
            Part::Plain(_) | Part::End => return Ok(()),
        };
        raw.skip_zeros()?;
        match Packing::of(raw.peek(Packing::MAGIC)?) {
            Some(packing) => self.part = Part::new(raw, packing)?,
            None => self.trailing = io::copy(&mut raw, &mut io::sink())?,
        }
        Ok(())
    }

    /// Tells a person about `error`, which reading has ended with.
    pub(super) fn explain(&self, error: &io::Error) -> String {
        if error.raw_os_error().is_some() {
            return format!("it cannot be read: {error}");
        }
        match &self.part {
            Part::Gzip(_) => explain_gzip(error),
            #[cfg(feature = "services")]
            Part::Zstd(_) => explain_zstd(error),
            Part::Plain(_) | Part::End => error.to_string(),
        }
    }
}

impl Read for Unpacked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.part {
                Part::Plain(raw) => return raw.read(into),
                Part::Gzip(decoder) => decoder.read(into),
                #[cfg(feature = "services")]
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

/// Advice for data that were packed well and have changed since.
const DAMAGED: &str = "fetch or copy the file once more";

fn explain_gzip(error: &io::Error) -> String {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::UnexpectedEof => ends_early("gzip"),
        _ if text.contains("checksum") => format!("the gzip data do not match their checksum: {DAMAGED}"),
        _ => format!("the gzip data are damaged ({text}): {DAMAGED}"),
    }
}

fn explain_zstd(error: &io::Error) -> String {
    let text = error.to_string();
    if error.kind() == ErrorKind::UnexpectedEof {
        return ends_early("zstd");
    }
    // The texts of the library; it has no other way to tell them apart here.
    match text.as_str() {
        "Restored data doesn't match checksum" => format!("the zstd data do not match their checksum: {DAMAGED}"),
        "Frame requires too much memory for decoding" => format!(
            "a zstd frame has a window of more than {} MiB: unpack it with a tool that takes it, and pack it again with \
             zstd --long=27",
            1_u64 << (MAX_WINDOW_LOG - 20)
        ),
        "Allocation error : not enough memory" => {
            "there is not enough memory for the window of a zstd frame: give this program more, or pack the data again \
             where there is more, by zstd --long=27"
                .to_owned()
        }
        "Dictionary mismatch" => {
            "the zstd data are packed with a dictionary: unpack them first, by zstd -dc -D DICTIONARY FILE".to_owned()
        }
        _ => format!("the zstd data are damaged ({text}): {DAMAGED}"),
    }
}

fn ends_early(packing: &str) -> String {
    format!("the {packing} data end before they are complete: {DAMAGED}, or wait until it is written")
}

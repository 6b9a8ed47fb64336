//! The accepted compressions.

/// The largest window of a zstd frame: 2 GiB, the most that the zstd tool compresses with. Data take memory as they fill it.
pub(super) const MAX_WINDOW_LOG: u32 = 31;

/// How an input is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Members of gzip.
    Gzip,
    /// Frames of zstd.
    Zstd,
}

impl Compression {
    /// Longest start that tells one.
    pub(super) const MAGIC: usize = 4;

    /// The compression of bytes that begin with `start`.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // a frame, or one to skip
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name of the format, which is also the name of its tool.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

//! The accepted compressions.

/// The largest accepted window of a zstd frame: 2 GiB, the largest window of the zstd tool. The memory grows only as the data
/// fill the window.
pub(super) const MAX_WINDOW_LOG: u32 = 31;

/// How an input is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
}

impl Compression {
    /// The number of first bytes that are enough to recognise any compression.
    pub(super) const MAGIC: usize = 4;

    /// The compression of bytes that begin with `start`.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // a frame, or a skippable frame
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

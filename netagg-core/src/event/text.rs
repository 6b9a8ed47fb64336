//! Texts with a limited length.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text of 1 to `MAX` Unicode scalar values. It does not contain NUL, which PostgreSQL cannot store. The text is not trimmed
/// or normalised.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundedText<const MAX: usize>(Box<str>);

/// The provider that an event comes from. It is one half of the identity of an event.
pub type SourceId = BoundedText<128>;
/// The subscriber that an event belongs to.
pub type UserId = BoundedText<64>;

impl<const MAX: usize> BoundedText<MAX> {
    /// Checks `text` and stores it unchanged.
    ///
    /// # Errors
    /// If `text` is empty, is longer than `MAX` scalar values, or contains NUL.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidText> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidText::Empty { max: MAX });
        }
        // The cheap check comes first: a text never has more scalar values than bytes.
        if text.len() > MAX && text.chars().count() > MAX {
            return Err(InvalidText::TooLong { max: MAX });
        }
        if text.contains('\0') {
            return Err(InvalidText::Nul);
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for BoundedText<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for BoundedText<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> FromStr for BoundedText<MAX> {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Self::new(text)
    }
}

impl<const MAX: usize> Serialize for BoundedText<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for BoundedText<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Why a text is not a [`BoundedText`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidText {
    /// The text is empty.
    #[error("empty: 1 to {max} characters are accepted")]
    Empty {
        /// The largest accepted number of characters.
        max: usize,
    },
    /// The text has too many characters (Unicode scalar values).
    #[error("too long: 1 to {max} characters are accepted")]
    TooLong {
        /// The largest accepted number of characters.
        max: usize,
    },
    /// The text contains a NUL character, which PostgreSQL cannot store.
    #[error("contains NUL: any other character is accepted")]
    Nul,
}

//! The types of events.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// What a usage event reports. The order is that of the contract and of every listing by type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// A call the user made.
    CallOut,
    /// A call the user received.
    CallIn,
    /// A short message the user sent.
    SmsSent,
    /// A short message the user received.
    SmsReceived,
    /// A data session.
    Data,
}

impl EventType {
    /// Every type, in order.
    pub const ALL: [Self; 5] = [Self::CallOut, Self::CallIn, Self::SmsSent, Self::SmsReceived, Self::Data];
    /// The accepted spellings, for messages to people.
    pub const ACCEPTED: &str = "CALL_OUT, CALL_IN, SMS_SENT, SMS_RECEIVED or DATA";

    /// The type's name in events, the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallOut => "CALL_OUT",
            Self::CallIn => "CALL_IN",
            Self::SmsSent => "SMS_SENT",
            Self::SmsReceived => "SMS_RECEIVED",
            Self::Data => "DATA",
        }
    }

    /// The number that stands for the type in stored content hashes and in cursors.
    ///
    /// A type keeps its number for ever and a new type gets the next one: with another number, every stored event of the
    /// type would be in conflict with its own copies.
    pub const fn code(self) -> u8 {
        match self {
            Self::CallOut => 0,
            Self::CallIn => 1,
            Self::SmsSent => 2,
            Self::SmsReceived => 3,
            Self::Data => 4,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, UnknownEventType> {
        Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or(UnknownEventType)
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A text that names no [`EventType`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown type: {} is accepted, in upper case", EventType::ACCEPTED)]
pub struct UnknownEventType;

//! The types of events.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The type of a usage event. The contract and every list by type have the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// A call that the user made.
    CallOut,
    /// A call that the user received.
    CallIn,
    /// A short message that the user sent.
    SmsSent,
    /// A short message that the user received.
    SmsReceived,
    /// A data session.
    Data,
}

impl EventType {
    /// Every type, in order.
    pub const ALL: [Self; 5] = [Self::CallOut, Self::CallIn, Self::SmsSent, Self::SmsReceived, Self::Data];
    /// A description of the accepted names, for messages to users.
    pub const ACCEPTED: &str = "CALL_OUT, CALL_IN, SMS_SENT, SMS_RECEIVED or DATA";

    /// The name of the type in events, the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallOut => "CALL_OUT",
            Self::CallIn => "CALL_IN",
            Self::SmsSent => "SMS_SENT",
            Self::SmsReceived => "SMS_RECEIVED",
            Self::Data => "DATA",
        }
    }

    /// The number of the type in stored content hashes and in cursors.
    ///
    /// The number of a type must never change, and a new type gets the next number. If the number of a type changed, every
    /// stored event of the type would conflict with its own copies.
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

/// The error for a text that is not the name of an [`EventType`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown type: {} is accepted, in upper case", EventType::ACCEPTED)]
pub struct UnknownEventType;

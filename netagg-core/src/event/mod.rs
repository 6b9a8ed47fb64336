//! The usage event: its fields as types that cannot hold an invalid value, its decoder and its identity.

mod admission;
mod decode;
mod identity;
mod invalid;
mod meta;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

pub(crate) use admission::Admission;
pub use admission::EventLimits;
pub use identity::{ContentHash, EventKey};
pub use invalid::{InvalidEvent, InvalidKind};
pub use meta::Meta;

use crate::time::Timestamp;

/// The largest nesting of JSON in an event, the event's own object included.
pub const MAX_DEPTH: usize = 100;
/// The longest call or session, in seconds.
pub const MAX_DURATION_SEC: u32 = i32::MAX as u32;
/// The largest byte count of one event and direction.
pub const MAX_BYTES: u64 = i64::MAX as u64;

/// What a usage event reports. The order is that of the contract and of every listing by type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums)]
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

/// A text of 1 to `MAX` Unicode scalar values without NUL, which PostgreSQL cannot store. Nothing is trimmed or
/// normalised.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundedText<const MAX: usize>(Box<str>);

/// The provider an event comes from; half of an event's identity.
pub type SourceId = BoundedText<128>;
/// The subscriber an event belongs to.
pub type UserId = BoundedText<64>;

impl<const MAX: usize> BoundedText<MAX> {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// When it is empty, longer than `MAX` scalar values, or contains NUL.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidText> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidText::Empty { max: MAX });
        }
        // Cheap first: no text has more scalar values than bytes.
        if text.len() > MAX && text.chars().count() > MAX {
            return Err(InvalidText::TooLong { max: MAX });
        }
        if text.contains('\0') {
            return Err(InvalidText::Nul);
        }
        Ok(Self(text))
    }

    /// The text itself.
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

/// Why a text is no [`BoundedText`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidText {
    /// Nothing in it.
    #[error("empty: 1 to {max} characters are accepted")]
    Empty {
        /// The most characters accepted.
        max: usize,
    },
    /// Too many characters (Unicode scalar values).
    #[error("too long: 1 to {max} characters are accepted")]
    TooLong {
        /// The most characters accepted.
        max: usize,
    },
    /// A NUL character, which PostgreSQL cannot store.
    #[error("contains NUL: any other character is accepted")]
    Nul,
}

/// The fields of an [`Event`], each valid by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct EventFields {
    /// The provider's number for the event; unique within `source_id`.
    pub event_id: Uuid,
    /// The provider.
    pub source_id: SourceId,
    /// The subscriber.
    pub user_id: UserId,
    /// What happened.
    pub event_type: EventType,
    /// When it began; decides the day and month it counts under.
    pub started_at: Timestamp,
    /// When it ended, if known; not before `started_at`.
    pub ended_at: Option<Timestamp>,
    /// Seconds, 0 to [`MAX_DURATION_SEC`]; never derived from the times.
    pub duration_sec: Option<u32>,
    /// Bytes sent by the user, 0 to [`MAX_BYTES`].
    pub bytes_up: u64,
    /// Bytes received by the user, 0 to [`MAX_BYTES`].
    pub bytes_down: u64,
    /// Whatever else the provider says.
    pub meta: Option<Meta>,
}

/// A valid usage event.
///
/// It is made by [`Event::decode`] from JSON, or by [`Event::new`] from fields in code; either way every rule of the
/// contract holds for it.
///
/// ```
/// use netagg_core::{Event, InvalidKind};
///
/// let event = Event::decode(br#"{
///     "event_id": "550e8400-e29b-41d4-a716-446655440000", "source_id": "provider-1", "user_id": "123456789",
///     "type": "CALL_OUT", "started_at": "2025-10-20T12:34:56Z", "duration_sec": 127
/// }"#)?;
/// assert_eq!(event.day().to_string(), "2025-10-20");
///
/// let error = Event::decode(br#"{"event_id": 5}"#).unwrap_err();
/// assert_eq!(error.kind(), InvalidKind::WrongType);
/// assert_eq!(error.to_string(), "event_id: found 5; accepted: a UUID string of the form 8-4-4-4-12");
/// # Ok::<(), netagg_core::InvalidEvent>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(EventFields);

impl Event {
    /// Checks the rules that single fields cannot hold.
    ///
    /// # Errors
    /// When it ends before it starts, or a number is larger than the contract allows.
    pub fn new(fields: EventFields) -> Result<Self, InvalidEvent> {
        if let Some(ended_at) = fields.ended_at
            && ended_at < fields.started_at
        {
            return Err(InvalidEvent::field(
                InvalidKind::EndsBeforeStart,
                "ended_at",
                ended_at.to_string(),
                "a time not before started_at",
            ));
        }
        if let Some(duration) = fields.duration_sec
            && duration > MAX_DURATION_SEC
        {
            return Err(InvalidEvent::out_of_range("duration_sec", duration, u64::from(MAX_DURATION_SEC)));
        }
        for (name, bytes) in [("bytes_up", fields.bytes_up), ("bytes_down", fields.bytes_down)] {
            if bytes > MAX_BYTES {
                return Err(InvalidEvent::out_of_range(name, bytes, MAX_BYTES));
            }
        }
        Ok(Self(fields))
    }

    /// The event that `json` holds: one JSON object in UTF-8, nothing but white space around it.
    ///
    /// # Errors
    /// The first rule of the contract that it breaks, naming the field, what was found and what is accepted. Any input
    /// ends in an event or an error, in time and memory proportional to its length.
    pub fn decode(json: &[u8]) -> Result<Self, InvalidEvent> {
        decode::decode(json)
    }

    /// The event as one line of JSON, as [`Event::decode`] reads it.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising strings, integers and well-formed raw JSON into memory cannot fail.
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        // A line break is white space of `meta`'s: strings have theirs escaped.
        json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        json
    }

    /// About how many bytes it takes in an answer or in memory, never less than in an answer of the API's gRPC.
    pub fn size(&self) -> u64 {
        let meta = self.0.meta.as_ref().map_or(0, |meta| meta.as_json().len());
        (256 + self.0.source_id.as_str().len() + meta) as u64
    }

    /// Its fields.
    pub fn fields(&self) -> &EventFields {
        &self.0
    }

    /// Its fields, to take apart.
    pub fn into_fields(self) -> EventFields {
        self.0
    }

    /// The UTC day it counts under.
    pub fn day(&self) -> crate::Day {
        self.0.started_at.day()
    }

    /// Its identity, derived from `(source_id, event_id)` alone.
    pub fn key(&self) -> EventKey {
        EventKey::of(&self.0.source_id, self.0.event_id)
    }

    /// A hash of everything but its identity; equal for equal content.
    pub fn content_hash(&self) -> ContentHash {
        ContentHash::of(&self.0)
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let fields = &self.0;
        let mut object = serializer.serialize_struct("Event", 10)?;
        object.serialize_field("event_id", &fields.event_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))?;
        object.serialize_field("source_id", &fields.source_id)?;
        object.serialize_field("user_id", &fields.user_id)?;
        object.serialize_field("type", &fields.event_type)?;
        object.serialize_field("started_at", &fields.started_at)?;
        object.serialize_field("ended_at", &fields.ended_at)?;
        object.serialize_field("duration_sec", &fields.duration_sec)?;
        object.serialize_field("bytes_up", &fields.bytes_up)?;
        object.serialize_field("bytes_down", &fields.bytes_down)?;
        object.serialize_field("meta", &fields.meta)?;
        object.end()
    }
}

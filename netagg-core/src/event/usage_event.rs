//! The event and its fields.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::event_type::EventType;
use super::invalid::{InvalidEvent, InvalidKind};
use super::meta::Meta;
use super::text::{SourceId, UserId};
use crate::record::OutgoingRecord;
use crate::time::{Day, Timestamp};

/// The longest duration of a call or session, in seconds.
pub const MAX_DURATION_SEC: u32 = i32::MAX as u32;
/// The largest number of bytes of one event in one direction.
pub const MAX_BYTES: u64 = i64::MAX as u64;

/// The fields of an [`Event`]. Each field is valid by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct EventFields {
    /// The identifier of the event, unique within `source_id`.
    pub event_id: Uuid,
    /// The provider that the event comes from.
    pub source_id: SourceId,
    /// The subscriber that the event belongs to.
    pub user_id: UserId,
    /// The type of the event.
    pub event_type: EventType,
    /// The start of the event. It decides in which day and month the event counts.
    pub started_at: Timestamp,
    /// The end of the event, if it is known. It is not before `started_at`.
    pub ended_at: Option<Timestamp>,
    /// The duration in seconds, 0 to [`MAX_DURATION_SEC`]. It is never computed from the times.
    pub duration_sec: Option<u32>,
    /// Bytes sent by the user, 0 to [`MAX_BYTES`].
    pub bytes_up: u64,
    /// Bytes received by the user, 0 to [`MAX_BYTES`].
    pub bytes_down: u64,
    /// Additional data of the provider.
    pub meta: Option<Meta>,
}

/// A valid usage event.
///
/// [`Event::decode`] creates an event from JSON, and [`Event::new`] creates an event from fields. In both cases, the event
/// satisfies all rules of the contract.
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
    /// Creates an event from `fields`. Checks the rules that the types of the fields do not check.
    ///
    /// # Errors
    /// If the event ends before it starts, or if a number is larger than the contract allows.
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

    /// A record of the event with the encoded event `value`. The key is the user, so that the records of one user stay in order.
    pub fn keyed_record(&self, value: impl Into<Bytes>) -> OutgoingRecord {
        OutgoingRecord::new(value).with_key(Bytes::copy_from_slice(self.0.user_id.as_str().as_bytes()))
    }

    /// The event as one line of JSON, which [`Event::decode`] can read.
    pub fn encode(&self) -> Vec<u8> {
        // The serialization of strings, integers and well-formed raw JSON into memory cannot fail.
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        // A line break can only be white space in `meta`, because strings have their line breaks escaped.
        json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        json
    }

    /// The approximate size of the event in bytes, in a response or in memory. The size in a gRPC response of the API is never
    /// larger.
    pub fn size(&self) -> u64 {
        let meta = self.0.meta.as_ref().map_or(0, |meta| meta.as_json().len());
        (256 + self.0.source_id.as_str().len() + meta) as u64
    }

    /// The fields.
    pub fn fields(&self) -> &EventFields {
        &self.0
    }

    /// Returns the fields and consumes the event.
    pub fn into_fields(self) -> EventFields {
        self.0
    }

    /// The UTC day in which the event counts.
    pub fn day(&self) -> Day {
        self.0.started_at.day()
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

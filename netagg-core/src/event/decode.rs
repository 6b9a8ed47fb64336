//! Decodes bytes into a valid event.
//!
//! One pass of serde decodes an event in its [usual form](usual_form). Any other message is decoded again, field by field. The
//! result is an event with an unusual spelling, or an error with the first rule that the message breaks.

mod usual_form;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use self::usual_form::hyphenated_uuid;
use super::json_text::{ACCEPTED_MESSAGE, check_depth, malformed, opens_at_most, unescape, unquote, verbatim};
use super::{
    BoundedText, Event, EventFields, EventType, InvalidEvent, InvalidKind, InvalidText, MAX_BYTES, MAX_DEPTH,
    MAX_DURATION_SEC, Meta,
};
use crate::record::Record;
use crate::time::Timestamp;

/// The fields in the order of the contract. The index is the slot in [`RawFields`].
const NAMES: [&str; 10] = [
    "event_id",
    "source_id",
    "user_id",
    "type",
    "started_at",
    "ended_at",
    "duration_sec",
    "bytes_up",
    "bytes_down",
    "meta",
];

impl Event {
    /// Decodes the event in `json`: one JSON object in UTF-8, with only white space around it.
    ///
    /// # Errors
    /// The first broken rule of the contract, with the field, the found value and the accepted values. Every input gives an event
    /// or an error, in time and memory proportional to its length.
    pub fn decode(json: &[u8]) -> Result<Self, InvalidEvent> {
        decode(json)
    }

    /// Decodes the event in the value of `record`, which is JSON.
    pub(crate) fn decode_record(record: &Record) -> Result<Self, InvalidEvent> {
        const ACCEPTED: &str = "a JSON object";
        match record.value.as_deref() {
            None => Err(InvalidEvent::message(InvalidKind::NullValue, "no value", ACCEPTED)),
            Some([]) => Err(InvalidEvent::message(InvalidKind::EmptyValue, "an empty value", ACCEPTED)),
            Some(value) => decode(value),
        }
    }
}

fn decode(json: &[u8]) -> Result<Event, InvalidEvent> {
    let text = std::str::from_utf8(json).map_err(|error| {
        let found = format!("a byte that is not UTF-8 at position {}", error.valid_up_to());
        InvalidEvent::message(InvalidKind::NotUtf8, found, ACCEPTED_MESSAGE)
    })?;
    let is_object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    if is_object
        && opens_at_most(text, MAX_DEPTH)
        && let Some(event) = usual_form::decode(text)
    {
        return Ok(event);
    }
    decode_by_field(text, is_object)
}

fn decode_by_field(text: &str, is_object: bool) -> Result<Event, InvalidEvent> {
    check_depth(text, MAX_DEPTH)?;
    if !is_object {
        serde_json::from_str::<IgnoredAny>(text).map_err(malformed)?;
        return Err(InvalidEvent::message(InvalidKind::NotAnObject, text.to_owned(), ACCEPTED_MESSAGE));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let raw = deserializer.deserialize_map(RawFieldsVisitor).map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    if let Some(name) = raw.repeated {
        return Err(InvalidEvent::field(InvalidKind::DuplicateField, name, "it twice", "each field once"));
    }
    raw.validate()
}

/// The raw JSON of each field of the contract.
#[derive(Default)]
struct RawFields<'a> {
    values: [Option<&'a RawValue>; NAMES.len()],
    repeated: Option<&'static str>,
}

struct RawFieldsVisitor;

impl<'de> Visitor<'de> for RawFieldsVisitor {
    type Value = RawFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ACCEPTED_MESSAGE)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFields<'de>, A::Error> {
        let mut fields = RawFields::default();
        // The keys are raw JSON, which serde checks strictly. They may hold lone surrogates, which a `str` cannot.
        while let Some(key) = map.next_key::<&RawValue>()? {
            match slot(key.get()).map_err(serde::de::Error::custom)? {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(slot) => {
                    if fields.values[slot].replace(map.next_value()?).is_some() {
                        fields.repeated.get_or_insert(NAMES[slot]);
                    }
                }
            }
        }
        Ok(fields)
    }
}

/// The slot of a key, which is given with its quotes. `None` if the contract does not have this field.
fn slot(quoted: &str) -> Result<Option<usize>, serde_json::Error> {
    let key = match verbatim(quoted) {
        Some(key) => Cow::Borrowed(key.as_bytes()),
        None => Cow::Owned(unescape(quoted)?),
    };
    Ok(NAMES.iter().position(|name| name.as_bytes() == &*key))
}

impl<'a> RawFields<'a> {
    fn validate(&self) -> Result<Event, InvalidEvent> {
        Event::new(EventFields {
            event_id: self.uuid(0)?,
            source_id: self.text(1)?,
            user_id: self.text(2)?,
            event_type: self.event_type(3)?,
            started_at: self.time(4)?.ok_or_else(|| missing(NAMES[4]))?,
            ended_at: self.time(5)?,
            duration_sec: self.integer(6, u64::from(MAX_DURATION_SEC))?.map(|seconds| seconds as u32),
            bytes_up: self.integer(7, MAX_BYTES)?.unwrap_or(0),
            bytes_down: self.integer(8, MAX_BYTES)?.unwrap_or(0),
            meta: self.get(9).map(Meta::from_raw).transpose()?,
        })
    }

    /// The JSON of the field, unless the field is absent or null.
    fn get(&self, slot: usize) -> Option<&'a RawValue> {
        self.values[slot].filter(|raw| raw.get() != "null")
    }

    /// The string of the field, unless the field is absent or null.
    fn string(&self, slot: usize, accepted: &'static str) -> Result<Option<Cow<'a, str>>, InvalidEvent> {
        let Some(raw) = self.get(slot) else { return Ok(None) };
        if !raw.get().starts_with('"') {
            return Err(wrong_type(slot, raw, accepted));
        }
        unquote(raw.get(), NAMES[slot]).map(Some)
    }

    fn required_string(&self, slot: usize, accepted: &'static str) -> Result<Cow<'a, str>, InvalidEvent> {
        self.string(slot, accepted)?.ok_or_else(|| missing(NAMES[slot]))
    }

    fn uuid(&self, slot: usize) -> Result<Uuid, InvalidEvent> {
        const ACCEPTED: &str = "a UUID string of the form 8-4-4-4-12";
        let text = self.required_string(slot, ACCEPTED)?;
        hyphenated_uuid(&text).ok_or_else(|| invalid(InvalidKind::InvalidUuid, slot, &text, ACCEPTED))
    }

    fn text<const MAX: usize>(&self, slot: usize) -> Result<BoundedText<MAX>, InvalidEvent> {
        let text = self.required_string(slot, "a string")?;
        BoundedText::new(&*text).map_err(|error| {
            let kind = match error {
                InvalidText::Nul => InvalidKind::NulCharacter,
                InvalidText::Empty { .. } | InvalidText::TooLong { .. } => InvalidKind::InvalidLength,
            };
            let found = format!("{} characters", text.chars().count());
            InvalidEvent::field(kind, NAMES[slot], found, format!("a string of 1 to {MAX} characters"))
        })
    }

    fn event_type(&self, slot: usize) -> Result<EventType, InvalidEvent> {
        let text = self.required_string(slot, EventType::ACCEPTED)?;
        text.parse().map_err(|_| invalid(InvalidKind::UnknownType, slot, &text, EventType::ACCEPTED))
    }

    fn time(&self, slot: usize) -> Result<Option<Timestamp>, InvalidEvent> {
        const ACCEPTED: &str = "an RFC 3339 time of the years 0001 to 9999, such as 2025-10-20T12:34:56Z";
        let Some(text) = self.string(slot, ACCEPTED)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| invalid(InvalidKind::InvalidTime, slot, &text, ACCEPTED))
    }

    /// An integer without a fraction and without an exponent.
    fn integer(&self, slot: usize, max: u64) -> Result<Option<u64>, InvalidEvent> {
        let Some(raw) = self.get(slot) else { return Ok(None) };
        let text = raw.get();
        let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if !is_number || text.contains(['.', 'e', 'E']) {
            return Err(wrong_type(slot, raw, format!("an integer from 0 to {max}, or null")));
        }
        match if text == "-0" { Ok(0) } else { text.parse() } {
            Ok(number) if number <= max => Ok(Some(number)),
            _ => Err(InvalidEvent::out_of_range(NAMES[slot], text, max)),
        }
    }
}

fn missing(name: &'static str) -> InvalidEvent {
    InvalidEvent::field(InvalidKind::MissingField, name, "nothing", "a value: the field is required")
}

fn invalid(kind: InvalidKind, slot: usize, found: &str, accepted: &'static str) -> InvalidEvent {
    InvalidEvent::field(kind, NAMES[slot], format!("{found:?}"), accepted)
}

fn wrong_type(slot: usize, raw: &RawValue, accepted: impl Into<Cow<'static, str>>) -> InvalidEvent {
    InvalidEvent::field(InvalidKind::WrongType, NAMES[slot], raw.get().to_owned(), accepted)
}

#[cfg(test)]
mod tests;

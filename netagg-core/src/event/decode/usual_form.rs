//! Decodes an event in its usual form, which nearly every producer writes: one pass of serde, without escapes in strings.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::{Event, EventFields, Meta, SourceId, UserId};
use crate::time::Timestamp;

/// The fields of the contract. Fields with other names are ignored.
///
/// serde rejects a string with an escape for `&str`, and a number with a fraction for an integer.
#[derive(Deserialize)]
struct UsualForm<'a> {
    event_id: &'a str,
    source_id: &'a str,
    user_id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    started_at: &'a str,
    ended_at: Option<&'a str>,
    duration_sec: Option<u32>,
    bytes_up: Option<u64>,
    bytes_down: Option<u64>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

/// The event in the JSON object `object`. `None` does not mean that the event is invalid, because it may have an unusual form.
pub(super) fn decode(object: &str) -> Option<Event> {
    let form: UsualForm<'_> = serde_json::from_str(object).ok()?;
    let fields = EventFields {
        event_id: hyphenated_uuid(form.event_id)?,
        source_id: SourceId::new(form.source_id).ok()?,
        user_id: UserId::new(form.user_id).ok()?,
        event_type: form.event_type.parse().ok()?,
        started_at: form.started_at.parse().ok()?,
        ended_at: form.ended_at.map(str::parse::<Timestamp>).transpose().ok()?,
        duration_sec: form.duration_sec,
        bytes_up: form.bytes_up.unwrap_or(0),
        bytes_down: form.bytes_down.unwrap_or(0),
        meta: form.meta.map(Meta::from_raw).transpose().ok()?,
    };
    Event::new(fields).ok()
}

/// Parses a UUID of the form 8-4-4-4-12. The crate uuid accepts more forms, but only this form has this length and a hyphen at
/// this position.
pub(super) fn hyphenated_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 && text.as_bytes()[8] == b'-' { Uuid::try_parse(text).ok() } else { None }
}

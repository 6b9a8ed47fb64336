//! An event in the form in which nearly every producer writes it: one pass of serde, without escapes in strings.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::{Event, EventFields, Meta, SourceId, UserId};
use crate::time::Timestamp;

/// The fields of the contract. Fields of other names are read over.
///
/// A `&str` takes no string with an escape, and an integer takes no fraction.
#[derive(Deserialize)]
pub(super) struct UsualForm<'a> {
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

impl<'a> UsualForm<'a> {
    /// The fields in `object`, a JSON object. `None` does not mean that the event is invalid: it may have another form.
    pub(super) fn read(object: &'a str) -> Option<Self> {
        serde_json::from_str(object).ok()
    }

    /// The event, if it is valid.
    pub(super) fn event(&self) -> Option<Event> {
        let fields = EventFields {
            event_id: hyphenated_uuid(self.event_id)?,
            source_id: SourceId::new(self.source_id).ok()?,
            user_id: UserId::new(self.user_id).ok()?,
            event_type: self.event_type.parse().ok()?,
            started_at: self.started_at.parse().ok()?,
            ended_at: self.ended_at.map(str::parse::<Timestamp>).transpose().ok()?,
            duration_sec: self.duration_sec,
            bytes_up: self.bytes_up.unwrap_or(0),
            bytes_down: self.bytes_down.unwrap_or(0),
            meta: self.meta.map(Meta::from_raw).transpose().ok()?,
        };
        Event::new(fields).ok()
    }
}

/// The UUID of the form 8-4-4-4-12. The uuid crate reads other forms too; no other has this length and this hyphen.
pub(super) fn hyphenated_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 && text.as_bytes()[8] == b'-' { Uuid::try_parse(text).ok() } else { None }
}

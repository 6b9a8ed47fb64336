//! Events for tests.

use uuid::Uuid;

use crate::event::{Event, EventFields, EventType, SourceId, UserId};
use crate::{Meta, Timestamp};

/// The fields of a test event. A test sets the fields that matter to it, and takes the other fields from the default.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct EventTemplate<'a> {
    /// The `event_id`, as a number.
    pub id: u128,
    /// The `source_id`, the provider.
    pub source: &'a str,
    /// The `user_id`, the subscriber.
    pub user: &'a str,
    /// The type of the event.
    pub event_type: EventType,
    /// The start of the event, in RFC 3339.
    pub started_at: &'a str,
    /// The duration in seconds.
    pub duration_sec: Option<u32>,
    /// The number of bytes that the user sent.
    pub bytes_up: u64,
    /// The number of bytes that the user received.
    pub bytes_down: u64,
    /// The metadata, a JSON object.
    pub meta: Option<&'a str>,
}

impl Default for EventTemplate<'_> {
    fn default() -> Self {
        Self {
            id: 1,
            source: "provider-1",
            user: "user-1",
            event_type: EventType::CallOut,
            started_at: "2025-10-20T12:00:00Z",
            duration_sec: Some(60),
            bytes_up: 0,
            bytes_down: 0,
            meta: None,
        }
    }
}

/// The event that `template` describes.
pub fn event(template: EventTemplate<'_>) -> Event {
    let started_at: Timestamp = template.started_at.parse().expect("RFC 3339");
    Event::new(EventFields {
        event_id: Uuid::from_u128(template.id),
        source_id: SourceId::new(template.source).expect("a source"),
        user_id: UserId::new(template.user).expect("a user"),
        event_type: template.event_type,
        started_at,
        ended_at: None,
        duration_sec: template.duration_sec,
        bytes_up: template.bytes_up,
        bytes_down: template.bytes_down,
        meta: template.meta.map(|json| Meta::parse(json).expect("a JSON object")),
    })
    .expect("a valid event")
}

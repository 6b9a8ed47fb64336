//! Events for tests.

use uuid::Uuid;

use crate::event::{Event, EventFields, EventType, SourceId, UserId};
use crate::{Meta, Timestamp};

/// What a test cares about in an event; the rest is filled in.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct EventTemplate<'a> {
    /// Becomes the `event_id`.
    pub id: u128,
    /// The provider.
    pub source: &'a str,
    /// The subscriber.
    pub user: &'a str,
    /// What happened.
    pub event_type: EventType,
    /// When, in RFC 3339.
    pub started_at: &'a str,
    /// Seconds.
    pub duration_sec: Option<u32>,
    /// Bytes sent.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
    /// A JSON object.
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

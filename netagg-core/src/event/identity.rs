//! The identity of an event, and the hash of its content.

use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Event, EventFields, SourceId};
use crate::time::Day;

/// The key of an event: 128 bits of SHA-256 over its identity `(source_id, event_id)`. The length of `source_id` comes first.
///
/// PostgreSQL computes the same key. So a query can join a ledger of keys with stored events:
///
/// ```sql
/// encode(substring(sha256(int4send(octet_length(source_id)) || convert_to(source_id, 'UTF8')
///                         || uuid_send(event_id)) for 16), 'hex')::uuid
/// ```
///
/// The hash is cryptographic. So a producer cannot create an event with the key of another event, which would hide the other
/// event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey([u8; 16]);

impl EventKey {
    /// The key of the event `event_id` of `source_id`.
    pub fn of(source_id: &SourceId, event_id: Uuid) -> Self {
        let source_id = source_id.as_str().as_bytes();
        let mut hash = Sha256::new();
        hash.update((source_id.len() as u32).to_be_bytes());
        hash.update(source_id);
        hash.update(event_id.as_bytes());
        Self(first_bytes(&hash.finalize()))
    }

    /// The key from the bytes that [`EventKey::to_bytes`] has returned.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key. They have the same order as the keys.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
    }
}

/// 64 bits of SHA-256 over all fields of an event except its identity.
///
/// The hash covers the stored values of the fields. It is equal for a duplicate. For a conflict it differs, except with a
/// probability of 1 in 2^64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(i64);

impl ContentHash {
    fn of(fields: &EventFields) -> Self {
        // Each field has a fixed length, or its length comes before it. So different contents always give different bytes.
        let mut hash = Sha256::new();
        let user_id = fields.user_id.as_str().as_bytes();
        let mut fixed = [0_u8; 4 + 1 + 8 + 9 + 5 + 8 + 8 + 1];
        let mut rest = &mut fixed[..];
        put(&mut rest, &(user_id.len() as u32).to_be_bytes());
        put(&mut rest, &[fields.event_type.code()]);
        put(&mut rest, &fields.started_at.as_micros().to_be_bytes());
        put(&mut rest, &[u8::from(fields.ended_at.is_some())]);
        put(&mut rest, &fields.ended_at.map_or(0, |at| at.as_micros()).to_be_bytes());
        put(&mut rest, &[u8::from(fields.duration_sec.is_some())]);
        put(&mut rest, &fields.duration_sec.unwrap_or(0).to_be_bytes());
        put(&mut rest, &fields.bytes_up.to_be_bytes());
        put(&mut rest, &fields.bytes_down.to_be_bytes());
        put(&mut rest, &[u8::from(fields.meta.is_some())]);
        hash.update(fixed);
        hash.update(user_id);
        if let Some(meta) = &fields.meta {
            hash.update(meta.digest());
        }
        Self(i64::from_be_bytes(first_bytes(&hash.finalize())))
    }

    /// The hash from the number that [`ContentHash::to_i64`] has returned.
    pub const fn from_i64(hash: i64) -> Self {
        Self(hash)
    }

    /// The hash as a number, for a `bigint` column.
    pub const fn to_i64(self) -> i64 {
        self.0
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Event {
    /// The key of the event, computed from `(source_id, event_id)` only.
    pub fn key(&self) -> EventKey {
        EventKey::of(&self.fields().source_id, self.fields().event_id)
    }

    /// The hash of all fields except the identity. Events with equal content have equal hashes.
    pub fn content_hash(&self) -> ContentHash {
        ContentHash::of(self.fields())
    }
}

/// The row of an event in a ledger: its key, the hash of its content, and its day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Identity {
    /// The key of the event.
    pub key: EventKey,
    /// The hash of the content.
    pub content: ContentHash,
    /// The UTC day in which the event counts.
    pub day: Day,
}

impl Identity {
    /// The identity of `event`.
    pub fn of(event: &Event) -> Self {
        Self { key: event.key(), content: event.content_hash(), day: event.day() }
    }
}

/// An event with its identity, which is computed only once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct IdentifiedEvent {
    /// The identity of `event`.
    pub identity: Identity,
    /// The event.
    pub event: Event,
}

impl From<Event> for IdentifiedEvent {
    fn from(event: Event) -> Self {
        Self { identity: Identity::of(&event), event }
    }
}

fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    let (head, tail) = std::mem::take(rest).split_at_mut(bytes.len());
    head.copy_from_slice(bytes);
    *rest = tail;
}

fn first_bytes<const N: usize>(hash: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;

    #[test]
    fn the_key_is_the_documented_function() {
        // Computed by the SQL in EventKey's documentation, on PostgreSQL 15.
        let source_id = SourceId::new("provider-1").expect("valid");
        let event_id = "550e8400-e29b-41d4-a716-446655440000".parse().expect("valid");
        assert_eq!(EventKey::of(&source_id, event_id).to_string(), KEY_FROM_SQL);
    }

    const KEY_FROM_SQL: &str = "5d554c17-6ce7-0d0d-743c-0b13ffb9b985";

    /// Every installation stores these hashes. Another value here would turn copies of stored events into conflicts.
    #[test]
    fn content_hashes_never_change() {
        let hash = |body: &str| {
            let json = format!(
                r#"{{"event_id":"550e8400-e29b-41d4-a716-446655440000","source_id":"provider-1","user_id":"123456789",{body}}}"#
            );
            crate::Event::decode(json.as_bytes()).expect("valid").content_hash().to_string()
        };
        for (event_type, code, expected) in [
            ("CALL_OUT", 0, "e77a26ebac7131ad"),
            ("CALL_IN", 1, "0345550fd4f1b0e6"),
            ("SMS_SENT", 2, "30c881b3d6567d35"),
            ("SMS_RECEIVED", 3, "f49495574f016a7c"),
            ("DATA", 4, "9f2968bcc98e8bb1"),
        ] {
            assert_eq!(event_type.parse::<EventType>().expect("a type").code(), code);
            let body = format!(r#""type":"{event_type}","started_at":"2025-10-20T12:34:56Z""#);
            assert_eq!(hash(&body), expected, "{event_type}");
        }
        let full = r#""type":"DATA","started_at":"2025-10-20T12:34:56.123456Z","ended_at":"2025-10-20T12:56:00Z",
            "duration_sec":127,"bytes_up":5,"bytes_down":9223372036854775807,"meta":{"cell":"A1","n":[1.50,null,true]}"#;
        assert_eq!(hash(full), "cb3fcbd3ea4ff8fe");
    }

    #[test]
    fn only_equal_content_has_an_equal_hash() {
        let event = |body: &str| {
            let json = format!(
                r#"{{"event_id":"550e8400-e29b-41d4-a716-446655440000","source_id":"s","type":"DATA",{body}}}"#
            );
            crate::Event::decode(json.as_bytes()).expect("valid").content_hash()
        };
        let base = event(r#""user_id":"u","started_at":"2025-10-20T12:00:00Z","meta":{"a":1.50,"b":[1e2,"x"]}"#);
        let same = [
            r#""user_id":"u","started_at":"2025-10-20T15:00:00+03:00","meta":{"b":[100,"\u0078"],"a":1.5}"#,
            r#""user_id":"u","started_at":"2025-10-20T12:00:00.0000009Z","meta":{"a":0,"a":1.5, "b":[100,"x"]}"#,
            r#""user_id":"u","ended_at":null,"bytes_up":0,"duration_sec":null,"started_at":"2025-10-20T12:00:00Z","meta":{"a":1.50,"b":[1e2,"x"]}"#,
        ];
        for body in same {
            assert_eq!(event(body), base, "{body}");
        }
        let other = [
            r#""user_id":"v","started_at":"2025-10-20T12:00:00Z","meta":{"a":1.50,"b":[1e2,"x"]}"#,
            r#""user_id":"u","started_at":"2025-10-20T12:00:01Z","meta":{"a":1.50,"b":[1e2,"x"]}"#,
            r#""user_id":"u","duration_sec":0,"started_at":"2025-10-20T12:00:00Z","meta":{"a":1.50,"b":[1e2,"x"]}"#,
            r#""user_id":"u","started_at":"2025-10-20T12:00:00Z","meta":{"a":1.50,"b":["x",1e2]}"#,
            r#""user_id":"u","started_at":"2025-10-20T12:00:00Z","meta":{"a":"1.50","b":[1e2,"x"]}"#,
            r#""user_id":"u","started_at":"2025-10-20T12:00:00Z","meta":{}"#,
            r#""user_id":"u","started_at":"2025-10-20T12:00:00Z""#,
        ];
        for body in other {
            assert_ne!(event(body), base, "{body}");
        }
    }
}

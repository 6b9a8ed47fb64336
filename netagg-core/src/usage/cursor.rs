//! Cursors of a user's detail: opaque, versioned and authenticated.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::query::DetailRequest;
use crate::event::SourceId;
use crate::ports::TimelinePosition;
use crate::time::Timestamp;

const VERSION: u8 = 1;
/// version, from, to, started_at, event_id
const FIXED: usize = 1 + 8 + 8 + 8 + 16;
/// HMAC-SHA256 cut to 128 bits, as RFC 2104 section 5 allows.
const TAG: usize = 16;

/// The key that cursors are authenticated with. All instances of an API share one, else a page turned at another
/// instance is refused.
#[derive(Clone)]
pub struct CursorSecret(Vec<u8>);

impl CursorSecret {
    /// A secret from bytes that are hard to guess.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    /// A secret nobody else knows, for a single instance.
    pub fn random() -> Self {
        Self([Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat())
    }
}

impl fmt::Debug for CursorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorSecret(…)")
    }
}

/// Where a page ended, and the range its listing is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) after: TimelinePosition,
}

impl Cursor {
    /// The text for a client, valid only for the user, type and range of `request`.
    pub(super) fn seal(&self, request: &DetailRequest, secret: &CursorSecret) -> String {
        let mut bytes = Vec::with_capacity(FIXED + 128 + TAG);
        bytes.push(VERSION);
        for at in [self.from, self.to, self.after.started_at] {
            bytes.extend_from_slice(&at.as_micros().to_be_bytes());
        }
        bytes.extend_from_slice(self.after.event_id.as_bytes());
        bytes.extend_from_slice(self.after.source_id.as_str().as_bytes());
        let tag = authenticator(&bytes, request, secret).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor in `text`; `None` unless it was sealed for a request of the same user, type and range.
    pub(super) fn open(text: &str, request: &DetailRequest, secret: &CursorSecret) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (payload, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        authenticator(payload, request, secret).verify_truncated_left(tag).ok()?;
        let (fixed, source_id) = payload.split_at_checked(FIXED)?;
        if fixed[0] != VERSION {
            return None;
        }
        let time = |at: usize| Timestamp::from_micros(i64::from_be_bytes(fixed[at..at + 8].try_into().ok()?));
        Some(Self {
            from: time(1)?,
            to: time(9)?,
            after: TimelinePosition {
                started_at: time(17)?,
                source_id: SourceId::new(std::str::from_utf8(source_id).ok()?).ok()?,
                event_id: Uuid::from_slice(&fixed[25..]).ok()?,
            },
        })
    }
}

/// Covers the cursor and what it may be used for: the user, the type, and the range as the client gives it (a default
/// range is fixed by the first page and travels in the cursor).
fn authenticator(payload: &[u8], request: &DetailRequest, secret: &CursorSecret) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("any length");
    let user_id = request.user_id.as_str().as_bytes();
    mac.update(&(user_id.len() as u32).to_be_bytes());
    mac.update(user_id);
    mac.update(&[request.event_type.map_or(0, |event_type| event_type as u8 + 1)]);
    for at in [request.from, request.to] {
        mac.update(&at.map_or(i64::MIN, Timestamp::as_micros).to_be_bytes());
    }
    mac.update(payload);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventType, UserId};
    use proptest::prelude::*;

    fn request() -> DetailRequest {
        DetailRequest::of(UserId::new("u").expect("valid"))
    }

    fn cursor() -> Cursor {
        let time = |text: &str| text.parse().expect("valid");
        Cursor {
            from: time("2025-10-01T00:00:00Z"),
            to: time("2025-11-01T00:00:00Z"),
            after: TimelinePosition {
                started_at: time("2025-10-20T12:34:56.789Z"),
                source_id: SourceId::new("provider-ж").expect("valid"),
                event_id: Uuid::from_u128(7),
            },
        }
    }

    #[test]
    fn a_cursor_opens_only_for_the_same_question_and_secret() {
        let secret = CursorSecret::new(*b"secret");
        let text = cursor().seal(&request(), &secret);
        assert_eq!(Cursor::open(&text, &request(), &secret), Some(cursor()));
        // Another limit is no other listing.
        assert!(Cursor::open(&text, &DetailRequest { limit: Some(5), ..request() }, &secret).is_some());

        let others = [
            DetailRequest { user_id: UserId::new("v").expect("valid"), ..request() },
            DetailRequest { event_type: Some(EventType::CallOut), ..request() },
            DetailRequest { from: Some(cursor().from), ..request() },
            DetailRequest { to: Some(cursor().to), ..request() },
        ];
        for other in others {
            assert_eq!(Cursor::open(&text, &other, &secret), None, "{other:?}");
        }
        assert_eq!(Cursor::open(&text, &request(), &CursorSecret::new(*b"another")), None);
    }

    #[test]
    fn a_cut_cursor_is_refused() {
        let secret = CursorSecret::random();
        let text = cursor().seal(&request(), &secret);
        for len in 0..text.len() {
            assert_eq!(Cursor::open(&text[..len], &request(), &secret), None);
        }
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_cursor(text in "[A-Za-z0-9_-]{0,120}") {
            prop_assert_eq!(Cursor::open(&text, &request(), &CursorSecret::new(*b"secret")), None);
        }

        #[test]
        fn a_changed_cursor_is_refused(at in 0_usize..70, flip in 1_u8..=255) {
            let secret = CursorSecret::new(*b"secret");
            let mut bytes = URL_SAFE_NO_PAD.decode(cursor().seal(&request(), &secret)).expect("base64");
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert_eq!(Cursor::open(&URL_SAFE_NO_PAD.encode(bytes), &request(), &secret), None);
        }
    }
}

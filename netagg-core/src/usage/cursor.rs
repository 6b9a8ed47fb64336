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
/// The length of the fixed part: version, from, to, started_at, event_id.
const FIXED: usize = 1 + 8 + 8 + 8 + 16;
/// The length of the tag: HMAC-SHA256 cut to 128 bits, as RFC 2104 section 5 allows.
const TAG: usize = 16;

/// The key that authenticates cursors. All instances of an API must share one key. Otherwise an instance rejects the cursors
/// of the other instances.
#[derive(Clone)]
pub struct CursorSecret(Vec<u8>);

impl CursorSecret {
    /// A secret from bytes that are hard to guess.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    /// A random secret that no other process knows, for a single instance.
    pub fn random() -> Self {
        Self([Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat())
    }
}

impl fmt::Debug for CursorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorSecret(…)")
    }
}

/// The position where a page ended, and the range of its listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) after: TimelinePosition,
}

impl Cursor {
    /// Returns the cursor as text for a client. The text is valid only for the user, type and range of `request`.
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

    /// Returns the cursor in `text`, or `None` unless it was sealed for a request with the same user, type and range.
    pub(super) fn open(text: &str, request: &DetailRequest, secret: &CursorSecret) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (payload, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        authenticator(payload, request, secret).verify_truncated_left(tag).ok()?;
        Self::read(payload)
    }

    fn read(payload: &[u8]) -> Option<Self> {
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

/// Whether `text` has the form of a cursor. The tag is not verified, because this needs the request of the listing. A text
/// without this form is invalid in every request.
pub fn is_cursor(text: &str) -> bool {
    let read = |bytes: Vec<u8>| Cursor::read(bytes.get(..bytes.len().checked_sub(TAG)?)?);
    URL_SAFE_NO_PAD.decode(text).ok().and_then(read).is_some()
}

/// The HMAC over the cursor and the parameters that it is valid for: the user, the type, and the range as the client gives it.
/// The first page fixes a default range, and the cursor contains it.
fn authenticator(payload: &[u8], request: &DetailRequest, secret: &CursorSecret) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes a key of any length");
    let user_id = request.user_id.as_str().as_bytes();
    mac.update(&(user_id.len() as u32).to_be_bytes());
    mac.update(user_id);
    mac.update(&[request.event_type.map_or(0, |event_type| event_type.code() + 1)]);
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
    fn a_cursor_opens_only_for_the_same_listing_and_secret() {
        let secret = CursorSecret::new(*b"secret");
        let text = cursor().seal(&request(), &secret);
        assert_eq!(Cursor::open(&text, &request(), &secret), Some(cursor()));
        assert!(is_cursor(&text));
        for other in [&text[1..], &text[..40], &format!("{text}="), "", "next"] {
            assert!(!is_cursor(other), "{other}");
        }
        // A request with another limit is for the same listing.
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

    /// Requests and secrets from small sets, so that two generated values are often equal.
    fn any_listing() -> impl Strategy<Value = (DetailRequest, &'static [u8])> {
        let user =
            prop::sample::select(vec!["u", "v", "u\u{1}", "ж"]).prop_map(|user| UserId::new(user).expect("valid"));
        let time = || prop::option::of((0_i64..2).prop_map(|micros| Timestamp::from_micros(micros).expect("in range")));
        let event_type = prop::option::of(prop::sample::select(&EventType::ALL[..2]));
        let secret = prop::sample::select(vec![&b"secret"[..], b"secreT", b"", &[7; 100]]);
        (user, time(), time(), event_type, secret).prop_map(|(user_id, from, to, event_type, secret)| {
            (DetailRequest { from, to, event_type, ..DetailRequest::of(user_id) }, secret)
        })
    }

    fn any_cursor() -> impl Strategy<Value = Cursor> {
        let time = || {
            (Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros())
                .prop_map(|micros| Timestamp::from_micros(micros).expect("in range"))
        };
        let source = prop::collection::vec(any::<char>().prop_filter("NUL", |char| *char != '\0'), 1..=128);
        (time(), time(), time(), source, any::<u128>()).prop_map(|(from, to, started_at, source, id)| Cursor {
            from,
            to,
            after: TimelinePosition {
                started_at,
                source_id: SourceId::new(String::from_iter(source)).expect("valid"),
                event_id: Uuid::from_u128(id),
            },
        })
    }

    proptest! {
        #[test]
        fn it_opens_as_it_was_sealed_for_the_same_listing_alone(
            cursor in any_cursor(),
            sealed_for in any_listing(),
            opened_for in any_listing(),
        ) {
            let text = cursor.seal(&sealed_for.0, &CursorSecret::new(sealed_for.1));
            let opened = |(request, secret): &(DetailRequest, &'static [u8])| {
                Cursor::open(&text, request, &CursorSecret::new(*secret))
            };
            prop_assert_eq!(opened(&sealed_for), Some(cursor.clone()));
            prop_assert_eq!(opened(&opened_for), (opened_for == sealed_for).then_some(cursor));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "fit for URLs");
        }

        #[test]
        fn no_other_text_is_a_cursor(bytes in prop::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
            let secret = CursorSecret::new(*b"secret");
            for text in [&*String::from_utf8_lossy(&bytes), &*URL_SAFE_NO_PAD.encode(&bytes), &*text] {
                prop_assert_eq!(Cursor::open(text, &request(), &secret), None);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Flips each bit of the sealed bytes. At each position of the text, the test cuts the text, inserts a character and
        /// changes a character.
        #[test]
        fn a_changed_cursor_is_refused(cursor in any_cursor(), (request, secret) in any_listing(), other in "[A-Za-z0-9_=+/ -]") {
            let secret = CursorSecret::new(secret);
            let text = cursor.seal(&request, &secret);
            let refused = |text: &str| Cursor::open(text, &request, &secret).is_none();
            let bytes = URL_SAFE_NO_PAD.decode(&text).expect("base64");
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(refused(&URL_SAFE_NO_PAD.encode(bytes)), "bit {bit}");
            }
            for at in 0..text.len() {
                prop_assert!(refused(&text[..at]) && refused(&text[at + 1..]), "cut at {at}");
                let longer = format!("{}{other}{}", &text[..at], &text[at..]);
                let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                prop_assert!(refused(&longer), "{longer}");
                prop_assert!(changed == text || refused(&changed), "{changed}");
            }
            prop_assert!(refused(&(text + &other)), "longer");
        }
    }
}

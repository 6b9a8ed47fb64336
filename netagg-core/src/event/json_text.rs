//! Checks of raw JSON: the limit of its nesting, and the unescaped texts of its strings.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Visitor};

use super::invalid::{InvalidEvent, InvalidKind};

pub(super) const ACCEPTED_MESSAGE: &str = "one JSON object in UTF-8";

/// The largest number of nested levels of JSON in an event. The object of the event is the first level.
pub const MAX_DEPTH: usize = 100;

/// Rejects text that is nested deeper than `max`, so that later steps can use recursion.
pub(super) fn check_depth(text: &str, max: usize) -> Result<(), InvalidEvent> {
    if opens_at_most(text, max) {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max {
                    return Err(InvalidEvent::message(
                        InvalidKind::TooDeep,
                        format!("nesting deeper than {MAX_DEPTH} levels"),
                        format!("at most {MAX_DEPTH} levels, the event's own object included"),
                    ));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Whether `text` has at most `max` opening brackets, so that it cannot be nested deeper. This is true for nearly every event.
pub(super) fn opens_at_most(text: &str, max: usize) -> bool {
    // The count of a piece fits into a byte, so the compiler can add 16 or 32 bytes at once.
    let count = |piece: &[u8]| piece.iter().map(|byte| u8::from(matches!(byte, b'{' | b'['))).sum::<u8>();
    text.as_bytes().chunks(255).map(|piece| usize::from(count(piece))).sum::<usize>() <= max
}

pub(super) fn malformed(error: serde_json::Error) -> InvalidEvent {
    InvalidEvent::message(InvalidKind::MalformedJson, format!("no JSON ({error})"), ACCEPTED_MESSAGE)
}

/// The text of `quoted`, a well-formed JSON string with its quotes, in the field `name`.
pub(super) fn unquote<'a>(quoted: &'a str, name: &'static str) -> Result<Cow<'a, str>, InvalidEvent> {
    if let Some(text) = verbatim(quoted) {
        return Ok(Cow::Borrowed(text));
    }
    let error = |kind, found: &'static str| Err(InvalidEvent::field(kind, name, found, "Unicode text without NUL"));
    match String::from_utf8(unescape(quoted).map_err(malformed)?) {
        Err(_) => error(InvalidKind::LoneSurrogate, "a lone surrogate"),
        Ok(text) if text.contains('\0') => error(InvalidKind::NulCharacter, "a NUL character"),
        Ok(text) => Ok(Cow::Owned(text)),
    }
}

/// The text between the quotes, if it has no escapes.
pub(super) fn verbatim(quoted: &str) -> Option<&str> {
    if quoted.contains('\\') { None } else { quoted.get(1..quoted.len() - 1) }
}

/// The bytes of a well-formed JSON string. A lone surrogate becomes three bytes that are not valid UTF-8.
pub(super) fn unescape(quoted: &str) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::Deserializer::from_str(quoted).deserialize_bytes(BytesVisitor)
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

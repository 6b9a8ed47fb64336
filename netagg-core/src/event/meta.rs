//! `meta`: an additional JSON object of the provider. netagg keeps its text unchanged, and checks that PostgreSQL's `jsonb` can
//! store it.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::invalid::{InvalidEvent, InvalidKind};
use super::json_text::{MAX_DEPTH, check_depth, unquote};

/// The largest number of digits before the decimal point of a PostgreSQL `numeric`. `jsonb` stores numbers as `numeric`
/// (<https://www.postgresql.org/docs/current/datatype-numeric.html>).
const MAX_INTEGER_DIGITS: i64 = 131_072;
/// The largest number of digits after the decimal point.
const MAX_FRACTION_DIGITS: i64 = 16_383;
/// The smallest exponent that PostgreSQL refuses (half of `INT_MAX`), also for a zero.
const EXPONENT_END: i64 = (i32::MAX / 2) as i64;

/// A JSON object that netagg and PostgreSQL's `jsonb` can store.
///
/// The text of the object stays unchanged. Two objects are equal if they have the same meaning for `jsonb`. So the comparison
/// ignores:
///
/// - the order of keys and white space;
/// - the spelling of numbers and strings;
/// - all values of a repeated key except the last value.
#[derive(Clone, Debug)]
pub struct Meta {
    json: Box<RawValue>,
    digest: [u8; 32],
}

impl Meta {
    /// Parses the object in `json`.
    ///
    /// # Errors
    /// If `json` is not one JSON object, is nested too deeply, or contains a NUL, a lone surrogate or a number that `jsonb`
    /// refuses.
    pub fn parse(json: &str) -> Result<Self, InvalidEvent> {
        // One level less than in an event, because `meta` is inside the object of the event.
        check_depth(json, MAX_DEPTH - 1)?;
        let raw: &RawValue = serde_json::from_str(json).map_err(|error| {
            InvalidEvent::field(InvalidKind::MalformedJson, "meta", format!("no JSON ({error})"), "a JSON object")
        })?;
        Self::from_raw(raw)
    }

    /// Like [`Meta::parse`], for a part of an event whose depth is already checked.
    pub(super) fn from_raw(raw: &RawValue) -> Result<Self, InvalidEvent> {
        if !raw.get().starts_with('{') {
            return Err(InvalidEvent::field(
                InvalidKind::WrongType,
                "meta",
                raw.get().to_owned(),
                "a JSON object or null",
            ));
        }
        // A short string needs more bytes than in JSON: a prefix of 5 bytes instead of 2 quotes.
        let mut canonical = Vec::with_capacity(raw.get().len() * 2);
        Canonicalizer { json: raw.get(), at: 0 }.value(&mut canonical)?;
        Ok(Self { digest: Sha256::digest(&canonical).into(), json: raw.to_owned() })
    }

    /// The object as JSON text.
    pub fn as_json(&self) -> &str {
        self.json.get()
    }

    /// The hash of the meaning of the object.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl PartialEq for Meta {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Meta {}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

/// Reads well-formed JSON of limited depth and writes it in a canonical form. In this form, keys are sorted, numbers are
/// normalised, and strings are unescaped and follow their length.
struct Canonicalizer<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Canonicalizer<'a> {
    fn value(&mut self, out: &mut Vec<u8>) -> Result<(), InvalidEvent> {
        match self.peek() {
            b'{' => self.object(out),
            b'[' => self.array(out),
            b'"' => {
                put_text(&self.string()?, out);
                Ok(())
            }
            b't' => self.literal("true", out),
            b'f' => self.literal("false", out),
            b'n' => self.literal("null", out),
            _ => self.number(out),
        }
    }

    fn object(&mut self, out: &mut Vec<u8>) -> Result<(), InvalidEvent> {
        self.skip();
        out.push(b'{');
        let begin = out.len();
        // Each key, and the position in `out` where the key and its value begin.
        let mut entries: Vec<(Cow<'a, str>, usize)> = Vec::new();
        while self.peek() != b'}' {
            let key = self.string()?;
            self.peek();
            self.skip(); // the colon
            let start = out.len();
            put_text(&key, out);
            self.value(out)?;
            entries.push((key, start));
            self.skip_comma();
        }
        self.skip();
        if !entries.is_sorted_by(|(one, _), (other, _)| one < other) {
            sort_entries(entries, begin, out);
        }
        out.push(b'}');
        Ok(())
    }

    fn array(&mut self, out: &mut Vec<u8>) -> Result<(), InvalidEvent> {
        self.skip();
        out.push(b'[');
        while self.peek() != b']' {
            self.value(out)?;
            self.skip_comma();
        }
        self.skip();
        out.push(b']');
        Ok(())
    }

    fn literal(&mut self, word: &'static str, out: &mut Vec<u8>) -> Result<(), InvalidEvent> {
        out.push(word.as_bytes()[0]);
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Result<(), InvalidEvent> {
        let rest = self.rest();
        let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        let number = &rest[..end];
        self.at += number.len();
        put_number(number, out)
    }

    /// The next string, unescaped.
    fn string(&mut self) -> Result<Cow<'a, str>, InvalidEvent> {
        self.peek();
        let rest = self.rest();
        let (mut end, mut has_escape) = (1, false);
        while let Some(&byte) = rest.as_bytes().get(end)
            && byte != b'"'
        {
            has_escape |= byte == b'\\';
            end += if byte == b'\\' { 2 } else { 1 };
        }
        let quoted = &rest[..(end + 1).min(rest.len())];
        self.at += quoted.len();
        if has_escape { unquote(quoted, "meta") } else { Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1])) }
    }

    /// Skips white space, and returns the next byte without consuming it; 0 at the end.
    fn peek(&mut self) -> u8 {
        let bytes = self.json.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    fn rest(&self) -> &'a str {
        self.json.get(self.at..).unwrap_or("")
    }

    fn skip(&mut self) {
        self.at += 1;
    }

    fn skip_comma(&mut self) {
        if self.peek() == b',' {
            self.skip();
        }
    }
}

/// Sorts by key the entries that are in `out` from `begin` on. An entry ends where the next entry starts. Of equal keys, only the
/// last entry stays.
fn sort_entries(entries: Vec<(Cow<'_, str>, usize)>, begin: usize, out: &mut Vec<u8>) {
    let written = out.split_off(begin);
    let ends: Vec<_> = entries.iter().skip(1).map(|(_, start)| *start).chain([begin + written.len()]).collect();
    let mut entries: Vec<_> = entries.into_iter().zip(ends).collect();
    // The sort is stable, so the last of equal keys stays last.
    entries.sort_by(|((one, _), _), ((other, _), _)| one.cmp(other));
    for (at, ((key, start), end)) in entries.iter().enumerate() {
        if entries.get(at + 1).is_none_or(|((next, _), _)| next != key) {
            out.extend_from_slice(&written[start - begin..end - begin]);
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(b's');
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Writes `number` as sign, exponent and significant digits, so that each value has only one form.
fn put_number(number: &str, out: &mut Vec<u8>) -> Result<(), InvalidEvent> {
    let too_large = || {
        InvalidEvent::field(
            InvalidKind::NumberTooLarge,
            "meta",
            format!("the number {number}"),
            "numbers of at most 131072 digits before the point and 16383 after it",
        )
    };
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        None => (number, 0),
        // An exponent of more than 64 bits is always over the limit.
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().map_err(|_| too_large())?),
    };
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = integer.bytes().chain(fraction.bytes());
    let leading_zeros = digits.clone().take_while(|&digit| digit == b'0').count();
    let is_zero = leading_zeros == integer.len() + fraction.len();

    let after_point = fraction.len() as i64 - exponent.min(EXPONENT_END);
    let before_point = integer.len() as i64 - leading_zeros as i64 + exponent.max(-EXPONENT_END);
    if exponent.unsigned_abs() >= EXPONENT_END.unsigned_abs()
        || after_point > MAX_FRACTION_DIGITS
        || (!is_zero && before_point > MAX_INTEGER_DIGITS)
    {
        return Err(too_large());
    }

    out.push(b'd');
    if !is_zero {
        let trailing_zeros = digits.clone().rev().take_while(|&digit| digit == b'0').count();
        out.push(if negative { b'-' } else { b'+' });
        // The value is 0.digits * 10^before_point.
        out.extend_from_slice(&before_point.to_be_bytes());
        let significant = integer.len() + fraction.len() - leading_zeros - trailing_zeros;
        out.extend(digits.skip(leading_zeros).take(significant));
    }
    out.push(b';');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(json: &str) -> Option<InvalidKind> {
        Meta::parse(json).err().map(|error| error.kind())
    }

    #[test]
    fn objects_that_jsonb_refuses_are_rejected() {
        for (json, expected) in [
            (r#"{"a":"\u0000"}"#, InvalidKind::NulCharacter),
            (r#"{"\u0000":1}"#, InvalidKind::NulCharacter),
            (r#"{"a":["\ud800"]}"#, InvalidKind::LoneSurrogate),
            (r#"{"\udc00\ud800":1}"#, InvalidKind::LoneSurrogate),
            (r#"{"a":1e200000}"#, InvalidKind::NumberTooLarge),
            (r#"{"a":1e131072}"#, InvalidKind::NumberTooLarge),
            (r#"{"a":1e-16384}"#, InvalidKind::NumberTooLarge),
            (r#"{"a":0e-16384}"#, InvalidKind::NumberTooLarge),
            (r#"{"a":0e1073741823}"#, InvalidKind::NumberTooLarge),
            (r#"{"a":1e99999999999999999999}"#, InvalidKind::NumberTooLarge),
            (r#"{"a":1e-99999999999999999999}"#, InvalidKind::NumberTooLarge),
            ("[]", InvalidKind::WrongType),
            (r#"{"a":1"#, InvalidKind::MalformedJson),
            (r#"{"a":01}"#, InvalidKind::MalformedJson),
        ] {
            assert_eq!(kind(json), Some(expected), "{json}");
        }
    }

    #[test]
    fn objects_that_jsonb_can_store_are_accepted() {
        for json in [
            "{}",
            r#" {"a" : [ ] , "b":{ }} "#,
            r#"{"a":1e131071}"#,
            r#"{"a":0.1e131072}"#,
            r#"{"a":1e-16383}"#,
            r#"{"a":0e200000}"#,
            r#"{"a":-0.0e+5,"b":1E5}"#,
            r#"{"a":"\ud83d\ude00\\\"","":null}"#,
        ] {
            assert_eq!(kind(json), None, "{json}");
        }
    }

    #[test]
    fn objects_with_the_same_meaning_are_equal() {
        let meta = |json| Meta::parse(json).expect("valid");
        for (one, other) in [
            (r#"{"a":1,"b":2}"#, r#"{ "b":2, "a":1 }"#),
            (r#"{"a":1.0}"#, r#"{"a":10e-1}"#),
            (r#"{"a":-0}"#, r#"{"a":0.00}"#),
            (r#"{"a":1,"a":2}"#, r#"{"\u0061":2}"#),
        ] {
            assert_eq!(meta(one), meta(other));
        }
        for (one, other) in [
            (r#"{"a":1}"#, r#"{"a":-1}"#),
            (r#"{"a":1}"#, r#"{"a":10}"#),
            (r#"{"a":[1,23]}"#, r#"{"a":[12,3]}"#),
            (r#"{"a":[[1],2]}"#, r#"{"a":[1,[2]]}"#),
            (r#"{"a":true}"#, r#"{"a":"t"}"#),
        ] {
            assert_ne!(meta(one), meta(other));
        }
    }
}

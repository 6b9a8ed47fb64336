//! A second, independent implementation of the contract for events. It is slow, parses a whole tree, and shares no code with the
//! decoder.
//!
//! The tests of the decoder and the fuzzer include this file. Each of them has `Event` in scope.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::Event;

/// Checks that the decoder and the rules agree about `bytes`, and that an accepted event decodes from its own encoding.
pub(crate) fn check(bytes: &[u8]) {
    let shown = || String::from_utf8_lossy(bytes);
    match (Event::decode(bytes), decode_by_rules(bytes)) {
        (Ok(event), Ok(content)) => {
            let encoded = event.encode();
            assert_eq!(content_of(&event), Content { meta: None, ..content.clone() }, "{}", shown());
            assert_eq!(decode_by_rules(&encoded), Ok(content), "{}", shown());
            let again = Event::decode(&encoded).expect("the encoding of an event is valid");
            assert_eq!(again, event, "{}", shown());
            assert_eq!((again.key(), again.content_hash()), (event.key(), event.content_hash()), "{}", shown());
            assert_eq!(again.encode(), encoded, "{}", shown());
        }
        (Err(error), Err(broken)) => {
            assert!(broken.contains(&error.kind().as_str()), "{error}, expected one of {broken:?}: {}", shown());
            assert!(error.to_string().len() < 600, "a long reason: {error}");
        }
        (Ok(_), Err(broken)) => panic!("accepted, although it breaks {broken:?}: {}", shown()),
        (Err(error), Ok(_)) => panic!("rejected, although valid: {error}: {}", shown()),
    }
}

/// The stored content of an event, with times in microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) event_id: u128,
    pub(crate) source_id: String,
    pub(crate) user_id: String,
    pub(crate) event_type: String,
    pub(crate) started_at: i64,
    pub(crate) ended_at: Option<i64>,
    pub(crate) duration_sec: Option<u64>,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) meta: Option<Meaning>,
}

/// The content of `event`, without its `meta`.
fn content_of(event: &Event) -> Content {
    let fields = event.fields();
    Content {
        event_id: fields.event_id.as_u128(),
        source_id: fields.source_id.as_str().to_owned(),
        user_id: fields.user_id.as_str().to_owned(),
        event_type: fields.event_type.as_str().to_owned(),
        started_at: fields.started_at.as_micros(),
        ended_at: fields.ended_at.map(|at| at.as_micros()),
        duration_sec: fields.duration_sec.map(u64::from),
        bytes_up: fields.bytes_up,
        bytes_down: fields.bytes_down,
        meta: None,
    }
}

/// The content of the event in `bytes`, or all rules that it breaks.
pub(crate) fn decode_by_rules(bytes: &[u8]) -> Result<Content, Vec<&'static str>> {
    let text = std::str::from_utf8(bytes).map_err(|_| vec!["not_utf8"])?;
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.value().and_then(|value| if parser.rest.is_empty() { Ok(value) } else { Err(MALFORMED) });
    let fields = match value {
        Ok(Json::Object(fields)) => fields,
        Ok(_) => return Err(vec!["not_an_object"]),
        // For invalid JSON, the decoder may also report the nesting.
        Err(MALFORMED) if text.matches(['{', '[']).count() > 100 => return Err(vec![MALFORMED, TOO_DEEP]),
        Err(broken) => return Err(vec![broken]),
    };
    let mut rules = Rules { fields, broken: Vec::new() };
    let content = rules.content();
    match content {
        Some(content) if rules.broken.is_empty() => Ok(content),
        _ => Err(rules.broken),
    }
}

/// JSON with the texts of numbers and with strings in UTF-16.
#[derive(Clone)]
enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(Vec<u16>),
    Array(Vec<Json>),
    Object(Vec<(Vec<u16>, Json)>),
}

const MALFORMED: &str = "malformed_json";
const TOO_DEEP: &str = "too_deep";

/// A parser of JSON (RFC 8259).
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Json, &'static str> {
        self.skip_space();
        let value = match self.rest.chars().next() {
            Some('{') => self
                .sequence('}', |parser| {
                    parser.skip_space();
                    let key = parser.text()?;
                    parser.skip_space();
                    parser.expect(":")?;
                    Ok((key, parser.value()?))
                })
                .map(Json::Object),
            Some('[') => self.sequence(']', Self::value).map(Json::Array),
            Some('"') => self.text().map(Json::Text),
            Some('n') => self.expect("null").map(|()| Json::Null),
            Some('t') => self.expect("true").map(|()| Json::Bool(true)),
            Some('f') => self.expect("false").map(|()| Json::Bool(false)),
            _ => self.number().map(Json::Number),
        };
        self.skip_space();
        value
    }

    /// Parses from the opening bracket to the closing bracket.
    fn sequence<T>(
        &mut self,
        close: char,
        item: impl Fn(&mut Self) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, &'static str> {
        self.rest = &self.rest[1..];
        self.depth += 1;
        if self.depth > 100 {
            return Err(TOO_DEEP);
        }
        let mut items = Vec::new();
        self.skip_space();
        if !self.rest.starts_with(close) {
            items.push(item(self)?);
            while self.rest.starts_with(',') {
                self.rest = &self.rest[1..];
                items.push(item(self)?);
            }
        }
        self.depth -= 1;
        self.expect(close.encode_utf8(&mut [0; 4])).map(|()| items)
    }

    fn text(&mut self) -> Result<Vec<u16>, &'static str> {
        self.expect("\"")?;
        let mut units = Vec::new();
        loop {
            match self.next()? {
                '"' => return Ok(units),
                ..' ' => return Err(MALFORMED),
                '\\' => units.push(match self.next()? {
                    'b' => 8,
                    't' => 9,
                    'n' => 10,
                    'f' => 12,
                    'r' => 13,
                    same @ ('"' | '\\' | '/') => same as u16,
                    'u' => (0..4).try_fold(0, |unit, _| {
                        self.next()?.to_digit(16).map(|digit| unit << 4 | digit as u16).ok_or(MALFORMED)
                    })?,
                    _ => return Err(MALFORMED),
                }),
                char => units.extend_from_slice(char.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn number(&mut self) -> Result<String, &'static str> {
        let all = self.rest;
        self.take("-");
        if !self.take("0") {
            self.digits()?;
        }
        if self.take(".") {
            self.digits()?;
        }
        if self.take("e") || self.take("E") {
            let _sign = self.take("+") || self.take("-");
            self.digits()?;
        }
        Ok(all[..all.len() - self.rest.len()].to_owned())
    }

    fn digits(&mut self) -> Result<(), &'static str> {
        let before = std::mem::take(&mut self.rest);
        self.rest = before.trim_start_matches(|char: char| char.is_ascii_digit());
        if self.rest.len() < before.len() { Ok(()) } else { Err(MALFORMED) }
    }

    fn take(&mut self, word: &str) -> bool {
        self.rest.strip_prefix(word).map(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, word: &str) -> Result<(), &'static str> {
        if self.take(word) { Ok(()) } else { Err(MALFORMED) }
    }

    fn next(&mut self) -> Result<char, &'static str> {
        let char = self.rest.chars().next().ok_or(MALFORMED)?;
        self.rest = &self.rest[char.len_utf8()..];
        Ok(char)
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
}

/// The rules of section 1 of the contract. A broken rule is recorded, and the other rules are still checked.
struct Rules {
    fields: Vec<(Vec<u16>, Json)>,
    broken: Vec<&'static str>,
}

impl Rules {
    fn content(&mut self) -> Option<Content> {
        let event_id = self.required("event_id", Self::uuid);
        let source_id = self.required("source_id", |rules, value| rules.bounded(value, 128));
        let user_id = self.required("user_id", |rules, value| rules.bounded(value, 64));
        let event_type = self.required("type", Self::event_type);
        let started_at = self.required("started_at", Self::time);
        let ended_at = self.optional("ended_at", Self::time);
        let duration_sec = self.optional("duration_sec", |rules, value| rules.integer(value, (1 << 31) - 1));
        let bytes_up = self.optional("bytes_up", |rules, value| rules.integer(value, (1 << 63) - 1));
        let bytes_down = self.optional("bytes_down", |rules, value| rules.integer(value, (1 << 63) - 1));
        let meta = self.optional("meta", Self::object);
        self.hold(ended_at.is_none() || started_at.is_none() || ended_at >= started_at, "ends_before_start");
        Some(Content {
            event_id: event_id?,
            source_id: source_id?,
            user_id: user_id?,
            event_type: event_type?,
            started_at: started_at?,
            ended_at,
            duration_sec,
            bytes_up: bytes_up.unwrap_or(0),
            bytes_down: bytes_down.unwrap_or(0),
            meta,
        })
    }

    fn hold(&mut self, holds: bool, rule: &'static str) -> Option<()> {
        if holds { Some(()) } else { self.breaks(rule) }
    }

    fn breaks<T>(&mut self, rule: &'static str) -> Option<T> {
        self.broken.push(rule);
        None
    }

    fn required<T>(&mut self, name: &str, read: impl Fn(&mut Self, Json) -> Option<T>) -> Option<T> {
        let is_given = self.values(name).any(|value| !matches!(value, Json::Null));
        self.hold(is_given, "missing_field");
        self.optional(name, read)
    }

    fn optional<T>(&mut self, name: &str, read: impl Fn(&mut Self, Json) -> Option<T>) -> Option<T> {
        let is_repeated = self.values(name).count() > 1;
        self.hold(!is_repeated, "duplicate_field");
        let value = self.values(name).next().filter(|value| !matches!(value, Json::Null)).cloned()?;
        read(self, value)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &Json> {
        let name: Vec<u16> = name.encode_utf16().collect();
        self.fields.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    fn text(&mut self, value: Json) -> Option<String> {
        if let Json::Text(units) = value { self.unicode(units) } else { self.breaks("wrong_type") }
    }

    fn unicode(&mut self, units: Vec<u16>) -> Option<String> {
        self.hold(!units.contains(&0), "nul_character");
        String::from_utf16(&units).ok().or_else(|| self.breaks("lone_surrogate"))
    }

    fn uuid(&mut self, value: Json) -> Option<u128> {
        let text = self.text(value)?;
        let shape: String = text.chars().map(|char| if char.is_ascii_hexdigit() { '0' } else { char }).collect();
        self.hold(shape == "00000000-0000-0000-0000-000000000000", "invalid_uuid")?;
        u128::from_str_radix(&text.replace('-', ""), 16).ok()
    }

    fn bounded(&mut self, value: Json, max: usize) -> Option<String> {
        let text = self.text(value)?;
        self.hold((1..=max).contains(&text.chars().count()), "invalid_length").map(|()| text)
    }

    fn event_type(&mut self, value: Json) -> Option<String> {
        let text = self.text(value)?;
        let is_known = ["CALL_OUT", "CALL_IN", "SMS_SENT", "SMS_RECEIVED", "DATA"].contains(&&*text);
        self.hold(is_known, "unknown_type").map(|()| text)
    }

    fn time(&mut self, value: Json) -> Option<i64> {
        instant(&self.text(value)?).or_else(|| self.breaks("invalid_time"))
    }

    fn integer(&mut self, value: Json, max: i128) -> Option<u64> {
        let Json::Number(text) = value else { return self.breaks("wrong_type") };
        self.hold(!text.contains(['.', 'e', 'E']), "wrong_type")?;
        let number = text.parse().ok().filter(|number| (0..=max).contains(number));
        number.map(|number| number as u64).or_else(|| self.breaks("out_of_range"))
    }

    fn object(&mut self, value: Json) -> Option<Meaning> {
        self.hold(matches!(value, Json::Object(_)), "wrong_type")?;
        self.meaning(value)
    }

    fn meaning(&mut self, value: Json) -> Option<Meaning> {
        Some(match value {
            Json::Null => Meaning::Null,
            Json::Bool(value) => Meaning::Bool(value),
            Json::Number(text) => self.number(&text)?,
            Json::Text(units) => Meaning::Text(self.unicode(units)?),
            Json::Array(items) => Meaning::Array(items.into_iter().filter_map(|item| self.meaning(item)).collect()),
            // A map keeps the last value of equal keys.
            Json::Object(entries) => Meaning::Object(
                entries.into_iter().filter_map(|(key, value)| self.unicode(key).zip(self.meaning(value))).collect(),
            ),
        })
    }

    /// The number 0.`digits` · 10^`point`.
    fn number(&mut self, text: &str) -> Option<Meaning> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (integer, is_negative) = integer.strip_prefix('-').map_or((integer, false), |integer| (integer, true));
        let (sign, power) = exponent.strip_prefix('-').map_or((1, exponent), |power| (-1, power));
        let power = power.trim_start_matches(['+', '0']);
        let power = if power.len() > 12 { i64::MAX / 2 } else { format!("0{power}").parse().ok()? };
        let exponent = sign * power;

        let digits = format!("{integer}{fraction}");
        let significant = digits.trim_start_matches('0');
        let point = integer.len() as i64 + exponent - (digits.len() - significant.len()) as i64;
        let is_zero = significant.is_empty();
        let fits = power < i64::from(i32::MAX / 2) // the limit of PostgreSQL, for any digits
            && fraction.len() as i64 - exponent <= 16_383
            && (is_zero || point <= 131_072);
        self.hold(fits, "number_too_large")?;
        Some(Meaning::Number {
            is_negative: is_negative && !is_zero,
            digits: significant.trim_end_matches('0').to_owned(),
            point: if is_zero { 0 } else { point },
        })
    }
}

/// The meaning of JSON for `jsonb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Null,
    Bool(bool),
    Number { is_negative: bool, digits: String, point: i64 },
    Text(String),
    Array(Vec<Meaning>),
    Object(BTreeMap<String, Meaning>),
}

/// The microseconds since 1970 of an RFC 3339 time that the contract accepts. This function checks the form, and chrono checks
/// the values.
fn instant(text: &str) -> Option<i64> {
    let shape: String = text.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    let rest = shape.strip_prefix("0000-00-00T00:00:00").or(shape.strip_prefix("0000-00-00t00:00:00"))?;
    let zone = rest.strip_prefix(".0").map_or(rest, |fraction| fraction.trim_start_matches('0'));
    if !["Z", "z", "+00:00", "-00:00"].contains(&zone) {
        return None;
    }
    let at = DateTime::parse_from_rfc3339(&text.to_ascii_uppercase()).ok()?;
    // chrono represents a leap second as the second before it, with a fraction of at least one second.
    let (seconds, micros) = (at.timestamp(), i64::from(at.timestamp_subsec_micros()));
    let since_1970 = if micros >= 1_000_000 { (seconds + 1) * 1_000_000 } else { seconds * 1_000_000 + micros };
    let years = -62_135_596_800 * 1_000_000..253_402_300_800 * 1_000_000;
    years.contains(&since_1970).then_some(since_1970)
}

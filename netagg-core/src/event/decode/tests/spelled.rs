//! Spells one event in all ways that JSON and the contract allow. Each spelling decodes to the same event with the same content.

use fastrand::Rng;

use super::oracle::{Content, Meaning, decode_by_rules};
use super::*;

proptest! {
    #[test]
    fn however_it_is_spelled_an_event_is_the_same(event in any_event(), seed in any::<u64>()) {
        let content = decode_by_rules(&event.encode()).expect("valid");
        let spelled = spell(&content, &mut Rng::with_seed(seed));
        prop_assert_eq!(decode_by_rules(spelled.as_bytes()), Ok(content), "{}", spelled);
        let decoded = Event::decode(spelled.as_bytes());
        prop_assert_eq!(decoded.as_ref(), Ok(&event), "{}", spelled);
        let decoded = decoded.expect("just compared");
        prop_assert_eq!((decoded.key(), decoded.content_hash()), (event.key(), event.content_hash()), "{}", spelled);
    }

    /// Replaces one field at a time by the field of `other`. A changed field of the identity changes the key. Any other changed
    /// field changes the hash.
    #[test]
    fn every_field_changes_the_key_or_the_hash(event in any_event(), other in any_event()) {
        let (one, two) = (event.fields(), other.into_fields());
        // Both events start at the same time, so that the end of the other event is valid for both.
        let two = EventFields { started_at: one.started_at, ended_at: two.ended_at.max(Some(one.started_at)), ..two };
        let identities = [
            EventFields { event_id: two.event_id, ..one.clone() },
            EventFields { source_id: two.source_id, ..one.clone() },
        ];
        for changed in identities {
            let changed = Event::new(changed).expect("valid");
            prop_assert_eq!(changed.key() == event.key(), changed == event);
            prop_assert_eq!(changed.content_hash(), event.content_hash());
        }
        let contents = [
            EventFields { user_id: two.user_id, ..one.clone() },
            EventFields { event_type: two.event_type, ..one.clone() },
            EventFields { started_at: Timestamp::MIN, ..one.clone() },
            EventFields { ended_at: two.ended_at, ..one.clone() },
            EventFields { ended_at: None, ..one.clone() },
            EventFields { duration_sec: two.duration_sec, ..one.clone() },
            EventFields { duration_sec: Some(0), ..one.clone() },
            EventFields { bytes_up: two.bytes_up, ..one.clone() },
            EventFields { bytes_down: two.bytes_down, ..one.clone() },
            EventFields { bytes_up: one.bytes_down, bytes_down: one.bytes_up, ..one.clone() },
            EventFields { meta: two.meta, ..one.clone() },
            EventFields { meta: None, ..one.clone() },
        ];
        for changed in contents {
            let changed = Event::new(changed).expect("valid");
            prop_assert_eq!(changed.content_hash() == event.content_hash(), changed == event, "{:?}", changed);
            prop_assert_eq!(changed.key(), event.key());
        }
    }
}

/// A random JSON text with the content `content`.
fn spell(content: &Content, rng: &mut Rng) -> String {
    let id = uuid::Uuid::from_u128(content.event_id).to_string();
    let id: String = id.chars().map(|char| if rng.bool() { char.to_ascii_uppercase() } else { char }).collect();
    let mut fields = vec![
        ("event_id", text(&id, rng)),
        ("source_id", text(&content.source_id, rng)),
        ("user_id", text(&content.user_id, rng)),
        ("type", text(&content.event_type, rng)),
        ("started_at", time(content.started_at, rng)),
        ("netagg", json(&Meaning::Null, rng)),
    ];
    let optional = [
        ("ended_at", content.ended_at.map(|at| time(at, rng))),
        ("duration_sec", content.duration_sec.map(|seconds| integer(seconds, rng))),
        ("bytes_up", Some(content.bytes_up).filter(|bytes| *bytes > 0 || rng.bool()).map(|bytes| integer(bytes, rng))),
        (
            "bytes_down",
            Some(content.bytes_down).filter(|bytes| *bytes > 0 || rng.bool()).map(|bytes| integer(bytes, rng)),
        ),
        ("meta", content.meta.as_ref().map(|meta| json(meta, rng))),
    ];
    for (name, value) in optional {
        match value {
            Some(value) => fields.push((name, value)),
            None if rng.bool() => fields.push((name, "null".to_owned())),
            None => {}
        }
    }
    let fields = fields.into_iter().map(|(name, value)| (text(name, rng), value)).collect();
    spaced(&object(fields, rng), rng)
}

fn integer(number: u64, rng: &mut Rng) -> String {
    if number == 0 && rng.bool() { "-0".to_owned() } else { number.to_string() }
}

/// The instant with a random offset and random digits after the microsecond, perhaps as a leap second. Without an offset if the
/// local year would not have four digits.
fn time(micros: i64, rng: &mut Rng) -> String {
    const SECOND: i64 = 1_000_000;
    let is_leap = micros.rem_euclid(60 * SECOND) == 0 && rng.bool();
    let shown = if is_leap { micros - SECOND } else { micros };
    let offset = rng.i64(-23 * 60 - 59..=23 * 60 + 59);
    let local = chrono::DateTime::from_timestamp_micros(shown + offset * 60 * SECOND).expect("in range");
    let Some(local) = Some(local).filter(|local| (0..=9999).contains(&chrono::Datelike::year(local))) else {
        return text(&Timestamp::from_micros(micros).expect("in range").to_string(), rng);
    };
    let fraction = if is_leap { rng.i64(..SECOND) } else { micros.rem_euclid(SECOND) };
    let beyond = "0123456789".repeat(rng.usize(..3));
    let second = if is_leap { "60".to_owned() } else { local.format("%S").to_string() };
    let sign = if offset < 0 { '-' } else { '+' };
    let zone = format!("{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60);
    let spelled = format!("{}:{second}.{fraction:06}{beyond}{zone}", local.format("%Y-%m-%dT%H:%M"));
    text(&if rng.bool() { spelled.to_lowercase() } else { spelled }, rng)
}

fn json(meaning: &Meaning, rng: &mut Rng) -> String {
    let spelled = match meaning {
        Meaning::Null => "null".to_owned(),
        Meaning::Bool(value) => value.to_string(),
        Meaning::Number { is_negative, digits, point } => number(*is_negative, digits, *point, rng),
        Meaning::Text(value) => text(value, rng),
        Meaning::Array(items) => {
            format!("[{}]", items.iter().map(|item| json(item, rng)).collect::<Vec<_>>().join(","))
        }
        Meaning::Object(entries) => {
            let object = object(entries.iter().map(|(key, value)| (text(key, rng), json(value, rng))).collect(), rng);
            // Of equal keys, only the last value counts.
            match entries.keys().next().filter(|_| rng.bool()) {
                Some(key) => object.replacen('{', &format!("{{{}:[0],", text(key, rng)), 1),
                None => object,
            }
        }
    };
    spaced(&spelled, rng)
}

/// The number 0.`digits` · 10^`point`, with the point at a random position and with random zeros. The number of digits after the
/// point stays within the limit.
fn number(is_negative: bool, digits: &str, point: i64, rng: &mut Rng) -> String {
    if digits.is_empty() {
        return rng.choice(["0", "-0", "0.00", "0e5", "-0.0E-03"]).expect("not empty").to_owned();
    }
    let sign = if is_negative { "-" } else { "" };
    let spare_digits = 16_383 - (digits.len() as i64 - point);
    let zeros = rng.i64(0..=spare_digits.clamp(0, 5)) as usize;
    let digits = digits.to_owned() + &"0".repeat(zeros);
    let (mantissa, exponent) = match rng.usize(..=digits.len()) {
        0 => {
            let zeros = rng.usize(..4);
            (format!("0.{}{digits}", "0".repeat(zeros)), point + zeros as i64)
        }
        at if at == digits.len() => (digits, point - at as i64),
        at => (format!("{}.{}", &digits[..at], &digits[at..]), point - at as i64),
    };
    match exponent {
        0 => format!("{sign}{mantissa}"),
        1.. if rng.bool() => format!("{sign}{mantissa}E+0{exponent}"),
        _ => format!("{sign}{mantissa}e{exponent}"),
    }
}

/// An object with the entries in a random order.
fn object(mut entries: Vec<(String, String)>, rng: &mut Rng) -> String {
    rng.shuffle(&mut entries);
    let entries: Vec<String> =
        entries.into_iter().map(|(key, value)| format!("{}:{value}", spaced(&key, rng))).collect();
    format!("{{{}}}", entries.join(","))
}

fn text(value: &str, rng: &mut Rng) -> String {
    let mut spelled = String::from("\"");
    for char in value.chars() {
        let short = "\"\"\\\\//b\u{8}f\u{c}n\nr\rt\t".chars().collect::<Vec<_>>();
        let short = short.chunks(2).find(|pair| pair[1] == char).map(|pair| format!("\\{}", pair[0]));
        let must_be_escaped = char < ' ' || matches!(char, '"' | '\\');
        match (rng.u8(..4), short) {
            (0..2, _) if !must_be_escaped => spelled.push(char),
            (2, Some(short)) => spelled.push_str(&short),
            _ => spelled.extend(char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    spelled + "\""
}

fn spaced(json: &str, rng: &mut Rng) -> String {
    let mut space = || rng.choice(["", "", " ", "\r\n", "\t"]).expect("not empty");
    [space(), json, space()].concat()
}

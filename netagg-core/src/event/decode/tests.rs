//! Tests of each rule of the contract for events.

mod forged;
mod oracle;
mod spelled;

use proptest::prelude::*;

use super::*;
use crate::event::EventLimits;
use crate::record::{PartitionId, Record, RecordTimestamp};
use crate::{SourceId, UserId};

/// A valid event with the required fields and with `changes`: a known field is replaced in its place, another field is added at
/// the end, and `None` removes a field.
fn json(changes: &[(&str, Option<&str>)]) -> String {
    let mut fields = vec![
        ("event_id", r#""550e8400-e29b-41d4-a716-446655440000""#),
        ("source_id", r#""provider-1""#),
        ("user_id", r#""123456789""#),
        ("type", r#""CALL_OUT""#),
        ("started_at", r#""2025-10-20T12:34:56Z""#),
    ];
    for &(name, value) in changes {
        let known = fields.iter().position(|(field, _)| *field == name);
        match (known, value) {
            (Some(at), Some(value)) => fields[at].1 = value,
            (Some(at), None) => drop(fields.remove(at)),
            (None, Some(value)) => fields.push((name, value)),
            (None, None) => {}
        }
    }
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn with(name: &str, value: &str) -> String {
    json(&[(name, Some(value))])
}

fn decode(json: &str) -> Event {
    Event::decode(json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// The kind and the message of the error for `json`.
fn rejected(json: impl AsRef<[u8]>) -> (InvalidKind, String) {
    let json = json.as_ref();
    match Event::decode(json) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(json)),
        Err(error) => (error.kind(), error.to_string()),
    }
}

#[test]
fn the_contracts_example() {
    let event = decode(
        r#"{"event_id":"550e8400-e29b-41d4-a716-446655440000","source_id":"provider-1","user_id":"123456789",
            "type":"CALL_OUT","started_at":"2025-10-20T12:34:56Z","ended_at":"2025-10-20T12:56:00Z",
            "duration_sec":127,"bytes_up":0,"bytes_down":0,"meta":{"cell":"A1"}}"#,
    );
    let expected = EventFields {
        event_id: "550e8400-e29b-41d4-a716-446655440000".parse().expect("a UUID"),
        source_id: SourceId::new("provider-1").expect("a source"),
        user_id: UserId::new("123456789").expect("a user"),
        event_type: EventType::CallOut,
        started_at: "2025-10-20T12:34:56Z".parse().expect("a time"),
        ended_at: Some("2025-10-20T12:56:00Z".parse().expect("a time")),
        duration_sec: Some(127),
        bytes_up: 0,
        bytes_down: 0,
        meta: Some(Meta::parse(r#"{"cell":"A1"}"#).expect("an object")),
    };
    assert_eq!(event.fields(), &expected);
    assert_eq!(event.fields().meta.as_ref().map(Meta::as_json), Some(r#"{"cell":"A1"}"#));
}

#[test]
fn absent_optional_fields_stay_absent_and_are_never_computed() {
    let event = decode(&json(&[("ended_at", Some(r#""2025-10-20T13:00:00Z""#))]));
    assert_eq!(event.fields().duration_sec, None);
    for absent in [json(&[]), json(&OPTIONAL.map(|name| (name, Some("null"))))] {
        let fields = decode(&absent).into_fields();
        assert_eq!((fields.ended_at, fields.duration_sec, fields.meta), (None, None, None));
        assert_eq!((fields.bytes_up, fields.bytes_down), (0, 0));
    }
    assert_eq!(decode(&with("duration_sec", "0")).fields().duration_sec, Some(0), "0 is not absent");
}

const REQUIRED: [&str; 5] = ["event_id", "source_id", "user_id", "type", "started_at"];
const OPTIONAL: [&str; 5] = ["ended_at", "duration_sec", "bytes_up", "bytes_down", "meta"];

#[test]
fn required_fields_are_neither_absent_nor_null() {
    for name in REQUIRED {
        for value in [None, Some("null")] {
            let (kind, message) = rejected(json(&[(name, value)]));
            assert_eq!(kind, InvalidKind::MissingField);
            assert_eq!(message, format!("{name}: found nothing; accepted: a value: the field is required"));
        }
    }
}

#[test]
fn a_wrong_type_is_reported_with_the_found_and_the_accepted_value() {
    let time = "an RFC 3339 time of the years 0001 to 9999, such as 2025-10-20T12:34:56Z";
    let bytes = "an integer from 0 to 9223372036854775807, or null";
    let accepted = [
        ("event_id", "a UUID string of the form 8-4-4-4-12"),
        ("source_id", "a string"),
        ("user_id", "a string"),
        ("type", "CALL_OUT, CALL_IN, SMS_SENT, SMS_RECEIVED or DATA"),
        ("started_at", time),
        ("ended_at", time),
        ("duration_sec", "an integer from 0 to 2147483647, or null"),
        ("bytes_up", bytes),
        ("bytes_down", bytes),
        ("meta", "a JSON object or null"),
    ];
    for (name, accepted) in accepted {
        for value in ["5", "true", "false", "[]", "{}", r#""5""#, "1.5", r#"[{"a":null}]"#] {
            let fits = match name {
                "duration_sec" | "bytes_up" | "bytes_down" => value == "5",
                "meta" => value == "{}",
                _ => value.starts_with('"'),
            };
            if !fits {
                let (kind, message) = rejected(with(name, value));
                assert_eq!(kind, InvalidKind::WrongType, "{name} {value}");
                assert_eq!(message, format!("{name}: found {value}; accepted: {accepted}"));
            }
        }
    }
}

#[test]
fn event_id_is_a_hyphenated_uuid_in_any_letter_case() {
    let plain = decode(&json(&[]));
    for text in [
        "550E8400-E29B-41D4-A716-446655440000",
        "550e8400-E29b-41d4-A716-446655440000",
        r"550e8400\u002de29b-41d4-a716-44665544\u0030000",
    ] {
        let same = decode(&with("event_id", &format!("\"{text}\"")));
        assert_eq!((same.key(), same.content_hash()), (plain.key(), plain.content_hash()), "{text}");
    }
    for any in ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
        decode(&with("event_id", &format!("\"{any}\"")));
    }
    for text in [
        "",
        "550e8400e29b41d4a716446655440000",
        "{550e8400-e29b-41d4-a716-446655440000}",
        "urn:uuid:550e8400-e29b-41d4-a716-446655440000",
        "550e8400-e29b-41d4-a716-44665544000",
        "550e8400-e29b-41d4-a716-4466554400000",
        "550e840-0e29b-41d4-a716-446655440000",
        "550e8400-e29b-41d4-a7164-46655440000",
        "g50e8400-e29b-41d4-a716-446655440000",
        " 550e8400-e29b-41d4-a716-44665544000",
        "550e8400-e29b-41d4-a716-446655440000 ",
        "550e8400-e29b-41d4-a716-4466554400é",
    ] {
        let (kind, message) = rejected(with("event_id", &format!("\"{text}\"")));
        assert_eq!(kind, InvalidKind::InvalidUuid, "{text}");
        let expected = format!("event_id: found {text:?}; accepted: a UUID string of the form 8-4-4-4-12");
        assert_eq!(message, expected);
    }
}

#[test]
fn texts_are_counted_in_scalar_values_and_stored_unchanged() {
    for (name, max) in [("source_id", 128), ("user_id", 64)] {
        // Characters of one, two and four bytes, also as a surrogate pair. A letter with a combining mark counts as two.
        for (unit, width) in [("x", 1), ("é", 1), ("\u{1F600}", 1), (r"\ud83d\ude00", 1), ("e\u{301}", 2)] {
            let longest = unit.repeat(max / width);
            let event = decode(&with(name, &format!("\"{longest}\"")));
            let fields = event.fields();
            let text = if name == "source_id" { fields.source_id.as_str() } else { fields.user_id.as_str() };
            assert_eq!(text.chars().count(), max);
            let (kind, message) = rejected(with(name, &format!("\"{longest}x\"")));
            assert_eq!(kind, InvalidKind::InvalidLength);
            let expected = format!("{name}: found {} characters; accepted: a string of 1 to {max} characters", max + 1);
            assert_eq!(message, expected);
        }
        let (kind, message) = rejected(with(name, r#""""#));
        assert_eq!(kind, InvalidKind::InvalidLength);
        assert_eq!(message, format!("{name}: found 0 characters; accepted: a string of 1 to {max} characters"));
    }
    for (written, kept) in [
        (r#"" 123 ""#, " 123 "),
        (r#""\t\n\r\b\f\/\\\"""#, "\t\n\r\u{8}\u{c}/\\\""),
        (r#""e\u0301""#, "e\u{301}"),
        (r#""\u00e9""#, "é"),
        (r#""\u0001\u007f""#, "\u{1}\u{7f}"),
        ("\"\u{feff}\"", "\u{feff}"),
    ] {
        assert_eq!(decode(&with("user_id", written)).fields().user_id.as_str(), kept);
    }
}

#[test]
fn type_is_one_of_five_in_upper_case() {
    for (text, event_type) in [
        ("CALL_OUT", EventType::CallOut),
        ("CALL_IN", EventType::CallIn),
        ("SMS_SENT", EventType::SmsSent),
        ("SMS_RECEIVED", EventType::SmsReceived),
        ("DATA", EventType::Data),
        (r"D\u0041TA", EventType::Data),
    ] {
        assert_eq!(decode(&with("type", &format!("\"{text}\""))).fields().event_type, event_type);
    }
    for text in ["", "data", "Data", "CALL", "DATA ", " DATA", "CALL-OUT", "VOICE"] {
        let (kind, message) = rejected(with("type", &format!("\"{text}\"")));
        assert_eq!(kind, InvalidKind::UnknownType);
        let accepted = "CALL_OUT, CALL_IN, SMS_SENT, SMS_RECEIVED or DATA";
        assert_eq!(message, format!("type: found {text:?}; accepted: {accepted}"));
    }
}

/// The tests of [`Timestamp`] cover the accepted forms. This test checks that both fields accept these forms.
#[test]
fn times_are_rfc_3339_and_stored_in_utc_cut_to_the_microsecond() {
    for (text, stored) in [
        ("2025-10-20t15:34:56.123456789+03:00", "2025-10-20T12:34:56.123456Z"),
        ("2025-10-20T12:34:60.9z", "2025-10-20T12:35:00Z"),
        (r"2025-10-20T12\u003a34:56Z", "2025-10-20T12:34:56Z"),
    ] {
        let time = format!("\"{text}\"");
        let event = decode(&json(&[("started_at", Some(&time)), ("ended_at", Some(&time))]));
        assert_eq!(event.fields().started_at.to_string(), stored);
        assert_eq!(event.fields().ended_at, Some(event.fields().started_at));
    }
    for name in ["started_at", "ended_at"] {
        for text in ["", "2025-10-20 12:34:56Z", "2025-10-20T12:34:56", "2025-13-01T00:00:00Z", "10000-01-01T00:00:00Z"]
        {
            let (kind, message) = rejected(with(name, &format!("\"{text}\"")));
            assert_eq!(kind, InvalidKind::InvalidTime);
            let accepted = "an RFC 3339 time of the years 0001 to 9999, such as 2025-10-20T12:34:56Z";
            assert_eq!(message, format!("{name}: found {text:?}; accepted: {accepted}"));
        }
    }
}

#[test]
fn ended_at_is_compared_after_the_cut_to_microseconds() {
    let event = |started_at: &str, ended_at: &str| {
        let quoted = [started_at, ended_at].map(|text| format!("\"{text}\""));
        json(&[("started_at", Some(&quoted[0])), ("ended_at", Some(&quoted[1]))])
    };
    decode(&event("2025-10-20T12:00:00.0000009Z", "2025-10-20T12:00:00.0000001Z")); // both cut to .000000
    decode(&event("2025-10-20T12:00:00Z", "2025-10-20T14:00:00+02:00"));
    decode(&event("2016-12-31T23:59:60.9Z", "2017-01-01T00:00:00Z"));
    for (started_at, ended_at) in [
        ("2025-10-20T12:00:00.000001Z", "2025-10-20T12:00:00.0000009Z"),
        ("2025-10-20T12:00:00Z", "2025-10-20T13:59:59+02:00"),
    ] {
        let (kind, message) = rejected(event(started_at, ended_at));
        assert_eq!(kind, InvalidKind::EndsBeforeStart);
        let found = ended_at.parse::<Timestamp>().expect("a time");
        assert_eq!(message, format!("ended_at: found {found}; accepted: a time not before started_at"));
    }
}

#[test]
fn integers_are_written_as_integers_within_their_range() {
    for (name, max, above) in [
        ("duration_sec", "2147483647", "2147483648"),
        ("bytes_up", "9223372036854775807", "9223372036854775808"),
        ("bytes_down", "9223372036854775807", "9223372036854775808"),
    ] {
        let read = |value: &str| {
            let fields = decode(&with(name, value)).into_fields();
            let seconds = fields.duration_sec.map_or(0, u64::from);
            (seconds + fields.bytes_up + fields.bytes_down).to_string()
        };
        for (written, value) in [("0", "0"), ("-0", "0"), ("1", "1"), (max, max)] {
            assert_eq!(read(written), value, "{name} {written}");
        }
        let huge = "9".repeat(60);
        for value in [above, "-1", "-9223372036854775809", "18446744073709551616", &huge] {
            let (kind, message) = rejected(with(name, value));
            assert_eq!(kind, InvalidKind::OutOfRange);
            assert_eq!(message, format!("{name}: found {value}; accepted: an integer from 0 to {max}"));
        }
        for value in ["5.0", "1e2", "1E2", "0.0", "-0.0", "1e-2", "1e400"] {
            assert_eq!(rejected(with(name, value)).0, InvalidKind::WrongType, "{name} {value}");
        }
        for value in ["05", "+5", "0x5", "-", ".5", "5.", "NaN", "Infinity", "1_000", "--0", "-00"] {
            assert_eq!(rejected(with(name, value)).0, InvalidKind::MalformedJson, "{name} {value}");
        }
    }
}

#[test]
fn the_text_of_meta_is_unchanged() {
    for meta in [
        "{}",
        r#"{"a":1.50,"b":12345678901234567890.123456789012345678901234567890,"c":1E5,"d":-0.0}"#,
        "{ \"a\" : [ 1 , { } ] ,\n\"\" : null }",
        r#"{"a":1,"a":2}"#,
        r#"{"\u0061":"\ud83d\ude00"}"#,
    ] {
        let event = decode(&with("meta", meta));
        assert_eq!(event.fields().meta.as_ref().map(Meta::as_json), Some(meta));
    }
    let huge = format!(r#"{{"a":{}}}"#, "9".repeat(131_072));
    decode(&with("meta", &huge));
    for (meta, kind) in [
        (r#"{"a":{"b":"\u0000"}}"#, InvalidKind::NulCharacter),
        (r#"{"a\u0000":1}"#, InvalidKind::NulCharacter),
        (r#"{"a":["\ud800"]}"#, InvalidKind::LoneSurrogate),
        (r#"{"\udfff":1}"#, InvalidKind::LoneSurrogate),
        (r#"{"a":1e200000}"#, InvalidKind::NumberTooLarge),
        (&huge.replace('}', "9}"), InvalidKind::NumberTooLarge),
    ] {
        let (found, message) = rejected(with("meta", meta));
        assert_eq!(found, kind);
        assert!(message.starts_with("meta: found ") && message.len() < 400, "{message}");
    }
}

#[test]
fn nul_and_lone_surrogates_are_rejected_in_every_field() {
    for name in ["event_id", "source_id", "user_id", "type", "started_at", "ended_at"] {
        for (value, kind) in [
            (r#""a\u0000b""#, InvalidKind::NulCharacter),
            (r#""\ud800""#, InvalidKind::LoneSurrogate),
            (r#""\udc00\ud800""#, InvalidKind::LoneSurrogate),
            (r#""\ud83dx""#, InvalidKind::LoneSurrogate),
            (r#""\ud83d\u0041""#, InvalidKind::LoneSurrogate),
        ] {
            let (found, message) = rejected(with(name, value));
            assert_eq!(found, kind, "{name} {value}");
            assert!(message.starts_with(&format!("{name}: found ")), "{message}");
            assert!(message.ends_with("; accepted: Unicode text without NUL"), "{message}");
        }
    }
}

#[test]
fn unknown_fields_are_ignored_if_they_are_valid_json() {
    let plain = decode(&json(&[]));
    for extra in [
        r#""x":1"#,
        r#""x":"\ud800","x":"\u0000","\ud800":1,"\u0000":{"a":1,"a":2}"#,
        r#""Type":"data","EVENT_ID":5,"event_id ":5,"":null,"meta\u0000":1"#,
        r#""x":1e999999999,"y":5.0,"z":[[],{},[{"event_id":1}]]"#,
        r#""event_id\\":1"#,
    ] {
        assert_eq!(decode(&json(&[]).replacen('{', &format!("{{{extra},"), 1)), plain, "{extra}");
    }
    for extra in [
        r#""x":01"#,
        r#""x":tru"#,
        r#""x":"\x""#,
        r#""x":"\ud8""#,
        r#""x":[1,]"#,
        r#""x":{"a"}"#,
        "\"x\":\"\n\"",
        "\"a\nb\":1",
        "\"x\":{\"a\tb\":1}",
        "x:1",
        "'x':1",
        "\"x\":1,",
    ] {
        let event = json(&[]).replacen('{', &format!("{{{extra},"), 1);
        assert_eq!(rejected(&event).0, InvalidKind::MalformedJson, "{extra}");
    }
}

#[test]
fn a_repeated_field_is_rejected_in_every_spelling() {
    let spelled = [
        ("event_id", r"event\u005fid"),
        ("source_id", r"\u0073ource_id"),
        ("user_id", r"user_i\u0064"),
        ("type", r"ty\u0070e"),
        ("started_at", r"started\u005Fat"),
        ("ended_at", r"\u0065nded_at"),
        ("duration_sec", r"duration_se\u0063"),
        ("bytes_up", r"bytes_u\u0070"),
        ("bytes_down", r"bytes_dow\u006e"),
        ("meta", r"m\u0065ta"),
    ];
    for (name, escaped) in spelled {
        // The value of the second field does not matter.
        for value in ["null", "5"] {
            for again in [name, escaped] {
                let once = if REQUIRED.contains(&name) { json(&[]) } else { with(name, "null") };
                let twice = once.replacen('{', &format!(r#"{{"{again}":{value},"#), 1);
                let (kind, message) = rejected(&twice);
                assert_eq!(kind, InvalidKind::DuplicateField, "{twice}");
                assert_eq!(message, format!("{name}: found it twice; accepted: each field once"));
            }
        }
    }
    assert_eq!(
        decode(&json(&[("type", None), (r"ty\u0070e", Some(r#""DATA""#))])).fields().event_type,
        EventType::Data
    );
}

#[test]
fn nesting_is_limited_in_all_fields() {
    // The object of the event is the first level.
    let nested = |name: &str, levels: usize, value: &str| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        with(name, &format!("{open}{value}{close}"))
    };
    let meta = |levels: usize| with("meta", &format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels)));
    decode(&nested("x", 99, ""));
    decode(&meta(99));
    decode(&nested("x", 99, r#""]]]][[[[\"[[[""#)); // brackets in a string are not levels
    decode(&with("x", &format!("[{}0]", "[],{},".repeat(10_000)))); // brackets side by side are not deeper levels
    for too_deep in [nested("x", 100, ""), meta(100), nested("x", 100_000, ""), meta(100_000), "[".repeat(1 << 20)] {
        let (kind, message) = rejected(too_deep);
        assert_eq!(kind, InvalidKind::TooDeep);
        let accepted = "at most 100 levels, the event's own object included";
        assert_eq!(message, format!("found nesting deeper than 100 levels; accepted: {accepted}"));
    }
}

#[test]
fn the_whole_message_is_one_object_in_utf_8() {
    let plain = json(&[]);
    decode(&format!(" \t\r\n{plain}\n\r\t "));
    for text in [
        format!("\u{feff}{plain}"),
        format!("{plain}{plain}"),
        format!("{plain} x"),
        format!("{plain},"),
        format!("{plain}\0"),
        format!("{plain}\u{a0}"),
        format!("\u{b}{plain}"),
        plain[..plain.len() - 1].to_owned(),
        "{".to_owned(),
        "{}}".to_owned(),
        " ".to_owned(),
        "nul".to_owned(),
        "\"".to_owned(),
    ] {
        let (kind, message) = rejected(&text);
        assert_eq!(kind, InvalidKind::MalformedJson, "{text}");
        assert!(message.starts_with("found no JSON (") && message.contains(" at line "), "{message}");
        assert!(message.ends_with("; accepted: one JSON object in UTF-8"), "{message}");
    }
    for text in ["[]", "null", " true", "5", r#""text""#, r#""\ud800""#, "[{}]"] {
        let (kind, message) = rejected(text);
        assert_eq!(kind, InvalidKind::NotAnObject);
        assert_eq!(message, format!("found {text}; accepted: one JSON object in UTF-8"));
    }
    let mut bytes = plain.clone().into_bytes();
    let at = plain.find("123456789").expect("the user");
    bytes[at] = 0xff;
    let (kind, message) = rejected(bytes);
    assert_eq!(kind, InvalidKind::NotUtf8);
    let found = format!("a byte that is not UTF-8 at position {at}");
    assert_eq!(message, format!("found {found}; accepted: one JSON object in UTF-8"));
    assert_eq!(rejected(b"\xed\xa0\x80").0, InvalidKind::NotUtf8, "a surrogate, encoded like UTF-8");
    assert_eq!(rejected("{}").0, InvalidKind::MissingField);
}

#[test]
fn an_invalid_megabyte_gives_a_short_reason() {
    const SIZE: usize = 1 << 20;
    let long = "x".repeat(SIZE);
    for (value, expected) in [
        (vec![0_u8; SIZE], InvalidKind::MalformedJson),
        (vec![0xff; SIZE], InvalidKind::NotUtf8),
        (vec![b'{'; SIZE], InvalidKind::TooDeep),
        (vec![b'"'; SIZE], InvalidKind::MalformedJson),
        (vec![b'9'; SIZE], InvalidKind::NotAnObject),
        (format!("\"{long}\"").into_bytes(), InvalidKind::NotAnObject),
        (with("source_id", &format!("\"{long}\"")).into_bytes(), InvalidKind::InvalidLength),
        (with("type", &format!("\"{long}\"")).into_bytes(), InvalidKind::UnknownType),
        (with("event_id", &format!("\"{}\"", "é".repeat(SIZE / 2))).into_bytes(), InvalidKind::InvalidUuid),
        (with("bytes_up", &"9".repeat(SIZE)).into_bytes(), InvalidKind::OutOfRange),
        (with("meta", &format!(r#"{{"a":{}}}"#, "9".repeat(SIZE))).into_bytes(), InvalidKind::NumberTooLarge),
        (with("meta", &format!("[{}1]", "1,".repeat(SIZE / 2))).into_bytes(), InvalidKind::WrongType),
    ] {
        let (kind, message) = rejected(value);
        assert_eq!(kind, expected);
        assert!(message.len() < 400, "{} bytes of message", message.len());
    }
    decode(&with("meta", &format!(r#"{{"a":"{long}"}}"#)));
    decode(&with("meta", &format!(r#"{{{}"b":1}}"#, r#""a":0,"#.repeat(SIZE / 6))));
}

fn record(value: Option<&str>, timestamp: Option<&str>) -> Record {
    Record {
        timestamp: timestamp.map(|at| at.parse::<Timestamp>().expect("a time").into()),
        value: value.map(|text| text.to_owned().into()),
        ..Record::new(PartitionId::new("events", 0), 0, "")
    }
}

#[test]
fn the_age_limits_refer_to_the_timestamp_of_the_record_and_are_inclusive() {
    let limits = EventLimits::default();
    let at = |started_at: &str| {
        let event = with("started_at", &format!("\"{started_at}\""));
        limits.admit(&record(Some(&event), Some("2025-10-20T12:00:00Z"))).map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(at("2020-10-21T12:00:00Z"), Ok(())); // 1,825 days before
    assert_eq!(at("2020-10-21T11:59:59.999999Z"), Err(InvalidKind::TooOld));
    assert_eq!(at("2025-10-21T12:00:00Z"), Ok(()));
    assert_eq!(at("2025-10-21T12:00:00.0000009Z"), Ok(()), "cut to the microsecond");
    assert_eq!(at("2025-10-21T12:00:00.000001Z"), Err(InvalidKind::TooFarInFuture));

    let late = with("started_at", r#""2025-10-22T00:00:00Z""#);
    let error = limits.admit(&record(Some(&late), Some("2025-10-20T12:00:00Z"))).expect_err("too far in future");
    assert_eq!(
        error.to_string(),
        "started_at: found 2025-10-22T00:00:00Z; accepted: a time from 2020-10-21T12:00:00Z to 2025-10-21T12:00:00Z \
         (the record's timestamp is 2025-10-20T12:00:00Z)"
    );
}

#[test]
fn a_record_needs_a_value_an_event_and_a_timestamp() {
    let now = Some("2025-10-20T12:00:00Z");
    let event = json(&[]);
    for (record, kind, message) in [
        (record(None, now), InvalidKind::NullValue, "found no value; accepted: a JSON object"),
        (record(Some(""), now), InvalidKind::EmptyValue, "found an empty value; accepted: a JSON object"),
        (record(Some("[]"), None), InvalidKind::NotAnObject, "found []; accepted: one JSON object in UTF-8"),
        (
            record(Some(&event), None),
            InvalidKind::NoTimestamp,
            "found a record without a timestamp; accepted: a record with a timestamp",
        ),
        (
            Record {
                timestamp: Some(RecordTimestamp::from_millis(1_761_000_000_000_000)),
                ..record(Some(&event), now)
            },
            InvalidKind::TimestampOutOfRange,
            "found a record with the timestamp 1761000000000000; accepted: a record whose timestamp is in milliseconds \
             since 1970, of the years 0001 to 9999",
        ),
    ] {
        let error = EventLimits::default().admit(&record).expect_err("no valid event");
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
    }
    assert_eq!(EventLimits::default().admit(&record(Some(&event), now)), Ok(decode(&event)));
}

#[test]
fn kinds_are_snake_case_and_distinct() {
    let names: std::collections::BTreeSet<_> = InvalidKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(names.len(), InvalidKind::ALL.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_8".contains(&byte))));
}

/// JSON of any kind with a little nesting, and with unusual strings and numbers.
fn any_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("JSON has no NaN", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,6})?",
    ];
    let leaf = prop_oneof![
        prop_oneof![Just("null"), Just("true"), Just("false")].prop_map(str::to_owned),
        number,
        any_string(),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((any_string(), inner), 0..5).prop_map(object),
        ]
    })
}

fn object(entries: Vec<(String, String)>) -> String {
    let entries: Vec<_> = entries.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{{}}}", entries.join(",\n"))
}

fn any_string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[^\"\\\\\\x00-\\x1f]{0,8}",
        1 => "\\\\u[0-9a-fA-F]{4}",
        1 => "\\\\[bfnrt\"/\\\\]",
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = |max: usize| prop::collection::vec(any::<char>().prop_filter("NUL", |char| *char != '\0'), 1..=max);
    let time = Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros();
    let meta = prop::collection::vec((any_string(), any_json()), 0..4)
        .prop_map(object)
        .prop_filter_map("jsonb refuses this object", |json| Meta::parse(&json).ok());
    let identity = (any::<u128>(), text(128), text(64), prop::sample::select(&EventType::ALL));
    let content = (
        [time.clone(), time],
        any::<bool>(),
        prop::option::of(0..=MAX_DURATION_SEC),
        0..=MAX_BYTES,
        0..=MAX_BYTES,
        prop::option::of(meta),
    );
    (identity, content).prop_map(|(identity, (mut times, ends, duration_sec, bytes_up, bytes_down, meta))| {
        times.sort_unstable();
        let [started_at, ended_at] = times.map(|micros| Timestamp::from_micros(micros).expect("in range"));
        let (id, source, user, event_type) = identity;
        Event::new(EventFields {
            event_id: Uuid::from_u128(id),
            source_id: SourceId::new(String::from_iter(source)).expect("a source"),
            user_id: UserId::new(String::from_iter(user)).expect("a user"),
            event_type,
            started_at,
            ended_at: ends.then_some(ended_at),
            duration_sec,
            bytes_up,
            bytes_down,
            meta,
        })
        .expect("a valid event")
    })
}

proptest! {
    #[test]
    fn any_bytes_give_an_event_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        oracle::check(&bytes);
    }

    #[test]
    fn any_change_of_an_event_gives_an_event_or_a_reason(
        event in any_event(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut json = event.encode();
        for (at, byte, how) in changes {
            let at = at.index(json.len());
            match how {
                0 => json[at] = byte,
                1 => json.insert(at, byte),
                _ => json.truncate(at.max(1)),
            }
        }
        oracle::check(&json);
    }

    #[test]
    fn an_encoded_event_decodes_to_the_same_event(event in any_event()) {
        let json = event.encode();
        prop_assert!(!json.iter().any(|byte| b"\r\n".contains(byte)), "one line, also with line breaks in meta");
        let decoded = Event::decode(&json);
        prop_assert_eq!(decoded.as_ref(), Ok(&event));
        let decoded = decoded.expect("just compared");
        prop_assert_eq!((decoded.key(), decoded.content_hash()), (event.key(), event.content_hash()));
        let meta = |event: &Event| event.fields().meta.as_ref().map(|meta| meta.as_json().replace('\n', " "));
        prop_assert_eq!(meta(&decoded), meta(&event));
    }

    /// An accepted `meta` is well-formed for other parsers too, and keeps its meaning when it is serialized again.
    #[test]
    fn accepted_meta_parses_again(entries in prop::collection::vec((any_string(), any_json()), 0..5)) {
        let json = with("meta", &object(entries));
        if let Ok(event) = Event::decode(json.as_bytes()) {
            let meta = event.fields().meta.clone().expect("just given");
            prop_assert_eq!(Meta::parse(meta.as_json()), Ok(meta.clone()));
            prop_assert!(serde_json::from_str::<IgnoredAny>(meta.as_json()).is_ok());
            let compact = serde_json::to_string(&meta).expect("JSON");
            prop_assert_eq!(Meta::parse(&compact), Ok(meta));
        }
    }

    /// The content of an ignored field does not change the result.
    #[test]
    fn an_ignored_field_does_not_change_the_result(name in any_string(), value in any_json()) {
        let plain = json(&[]);
        let extended = plain.replacen('{', &format!("{{{name}:{value},"), 1);
        let is_known = serde_json::from_str::<String>(&name).is_ok_and(|name| NAMES.contains(&name.as_str()));
        if !is_known {
            prop_assert_eq!(Event::decode(extended.as_bytes()), Ok(decode(&plain)));
        }
    }
}

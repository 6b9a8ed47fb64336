//! Events with unusual or invalid parts. The decoder accepts exactly the events that the contract accepts.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::oracle::check;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn the_decoder_takes_exactly_what_the_contract_takes(seed in any::<u64>(), key in any_string(), value in any_json()) {
        check(&forge(&mut Rng::with_seed(seed), &key, &value));
    }
}

/// Checks that the property above covers valid events and every kind of error.
#[test]
fn forged_events_cover_every_kind_of_error() {
    let mut met = BTreeMap::new();
    for seed in 0..5_000 {
        let result = Event::decode(&forge(&mut Rng::with_seed(seed), r#""x""#, "[1,{}]"));
        *met.entry(result.map_or_else(|error| error.kind().as_str(), |_| "valid")).or_insert(0) += 1;
    }
    assert!((1_000..4_000).contains(&met["valid"]), "{met:?}");
    let of_records = [
        "null_value",
        "empty_value",
        "no_timestamp",
        "timestamp_out_of_range",
        "too_old",
        "too_far_in_future",
        "month_dropped",
        "custom",
        "refused_by_store",
    ];
    for kind in InvalidKind::ALL.map(InvalidKind::as_str) {
        let is_met = met.get(kind).is_some_and(|count| *count >= 5);
        assert!(is_met || of_records.contains(&kind), "{kind}: {met:?}");
    }
}

/// A usual event with random changes of a few fields, of the whole text, or of a byte. `key` and `value` are any JSON.
fn forge(rng: &mut Rng, key: &str, value: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for name in NAMES {
        if REQUIRED.contains(&name) || rng.bool() {
            fields.push((format!("\"{name}\""), usual(name, rng).to_owned()));
        }
    }
    for _ in 0..rng.usize(..3) {
        let at = rng.usize(..fields.len());
        let name = fields[at].0.trim_matches('"').to_owned();
        match rng.u8(..16) {
            0 => drop(fields.remove(at)),
            1 => fields.push((fields[at].0.clone(), odd(&name, rng))),
            2 => fields.push((key.to_owned(), value.to_owned())),
            3 => fields[at].1 = value.to_owned(),
            4 => fields[at].0 = fields[at].0.to_uppercase(),
            5 => fields[at].0 = fields[at].0.replace('e', r"\u0065"),
            _ => fields[at].1 = odd(&name, rng),
        }
    }
    rng.shuffle(&mut fields);
    let space = pick(rng, "| |\n\t|\r\n  ");
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{space}{name}{space}:{space}{value}{space}")).collect();
    let (before, after) = match rng.u8(..24) {
        0 => (pick(rng, "\u{feff}| \t\r\n|[|\u{b}|\0|x"), ""),
        1 => ("", pick(rng, "\n|{}|]|,|\u{a0}|\0")),
        2 => ("[", "]"),
        _ => ("", ""),
    };
    let mut bytes = format!("{before}{{{}}}{after}", fields.join(",")).into_bytes();
    let at = rng.usize(..bytes.len());
    let byte = rng.choice(*b"\"\\{}[],:0019eE.-+uTZ \n\t\0\x7f\x80\xc3\xed\xff").unwrap_or(0);
    match rng.u8(..32) {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 => drop(bytes.remove(at)),
        3 => bytes.truncate(at),
        _ => {}
    }
    bytes
}

fn usual(name: &str, rng: &mut Rng) -> &'static str {
    let values = match name {
        "event_id" => r#""550e8400-e29b-41d4-a716-446655440000"|"FFFFFFFF-ffff-4fff-bfff-ffffffffffff""#,
        "source_id" => r#""provider-1"|"\u0070rovider\t1""#,
        "user_id" => r#""123456789"|" \"1\" ""#,
        "type" => r#""CALL_OUT"|"CALL_IN"|"SMS_SENT"|"SMS_RECEIVED"|"DATA""#,
        "started_at" => {
            r#""2025-10-20T12:34:56Z"|"2025-10-20T15:34:56.0000009+03:00"|"2025-10-20T12:34:56.000001Z"|"2016-12-31t23:59:60.5z""#
        }
        "ended_at" => r#"null|"2025-10-20T12:34:56Z"|"2025-10-20T12:34:57Z"|"9999-12-31T23:59:59.999999Z""#,
        "meta" => r#"null|{}|{"a":[1.50,{"b":null}],"c":"d"}"#,
        _ => "null|0|-0|1|2147483647",
    };
    pick(rng, values)
}

/// A value of the field at the edge of the accepted values, valid or invalid.
fn odd(name: &str, rng: &mut Rng) -> String {
    if rng.u8(..5) == 0 {
        let anything =
            r#"null|true|5|1.5|[]|{}|""|"5"|"\u0000"|"\ud800"|"\udc00\ud800"|"\ud83d\ude00"|"\u0000\udfff"|"\x"|nul"#;
        return pick(rng, anything).to_owned();
    }
    match name {
        "event_id" => format!("\"{}\"", pick(rng, EVENT_IDS)),
        "source_id" | "user_id" => {
            let unit = pick(rng, "x|é|\u{1F600}|\\ud83d\\ude00|\\u00e9|\\n|e\u{301}");
            format!("\"{}\"", unit.repeat(rng.choice([0, 1, 32, 33, 63, 64, 65, 127, 128, 129]).unwrap_or(0)))
        }
        "type" => format!("\"{}\"", pick(rng, r"data|DATA |CALL|D\u0041TA|CALL_OUT\n|VOICE")),
        "started_at" | "ended_at" => {
            let parts = [DATES, "T|T|T|T|t| |_|", TIMES, FRACTIONS, ZONES].map(|parts| pick(rng, parts));
            format!("\"{}\"", parts.concat())
        }
        "meta" => odd_meta(rng),
        _ => pick(rng, INTEGERS).to_owned(),
    }
}

const EVENT_IDS: &str = "550e8400\\u002de29b-41d4-a716-446655440000|550e8400e29b41d4a716446655440000|\
    {550e8400-e29b-41d4-a716-446655440000}|550e8400-e29b-41d4-a716-44665544000|550e8400-e29b-41d4-a716-4466554400000|\
    550e840-0e29b-41d4-a716-446655440000|x50e8400-e29b-41d4-a716-446655440000|550e8400-e29b-41d4-a716-4466554400é";
const DATES: &str = "2025-10-20|2025-10-20|2025-10-20|2024-02-29|2000-02-29|0001-01-01|9999-12-31|0000-12-31|\
    2025-02-29|1900-02-29|2025-13-01|2025-00-10|2025-10-00|2025-04-31|10000-01-01|-001-01-01";
const TIMES: &str = "12:34:56|12:34:56|12:34:56|00:00:00|23:59:59|23:59:60|12:00:60|24:00:00|23:60:00|23:59:61|\
    1:02:03|12:34|123456";
const FRACTIONS: &str = "|||.5|.0|.999999|.9999999|.123456789012345678901|.|,5|.5.5";
const ZONES: &str =
    "Z|Z|Z|z|+00:00|-00:00|+23:59|-23:59|+05:30|-00:01|+24:00|+00:60|+0300|+03|| Z|Z |+3:00|\u{2212}03:00";
const INTEGERS: &str = "0|-0|00|-1|05|+5|5.0|-0.0|1e2|1E2|1e-2|2147483647|2147483648|9223372036854775807|\
    9223372036854775808|-9223372036854775809|18446744073709551616|170141183460469231731687303715884105728|1e400|-";
const NUMBERS: &str = "-0|0e131072|1e131071|1e131072|0.1e131072|0.01e131073|1e-16383|1e-16384|1.0e-16382|1.0e-16383|\
    0e-16384|1e200000|0e1073741822|0e1073741823|1e1073741823|1e-1073741823|1e99999999999999999999|\
    0e-99999999999999999999|1e0000000000000000000000005|100000e131066|100000e131067|1.e5|1e|01";
const STRINGS: &str =
    r#""\u0000"|"\ud800"|"\udc00\ud800"|"\ud83d\ude00"|"\uD83D\\uDE00"|"\ud83d\ud83d\ude00"|"\u12g4"|"\/\b\f\n\r\t\"""#;

fn odd_meta(rng: &mut Rng) -> String {
    let inner = match rng.u8(..4) {
        0 => {
            let levels = rng.usize(98..=101);
            return format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        }
        1 => pick(rng, NUMBERS),
        2 => pick(rng, STRINGS),
        _ => pick(rng, "[1,]|[,1]|[1 2]|{\"a\"}|{1:2}|\"\u{1}\"|\"\u{7f}\u{10ffff}\"|[]|{ }"),
    };
    // As a value, as a value of a repeated key that a later value replaces, and as a key.
    match rng.u8(..3) {
        0 => format!(r#"{{"a":{inner}}}"#),
        1 => format!(r#"{{"a":{inner},"a":1}}"#),
        _ => format!(r#"{{"b":[{{{inner}:1}}]}}"#),
    }
}

/// A random word of `words`, which are separated by bars.
fn pick<'a>(rng: &mut Rng, words: &'a str) -> &'a str {
    let words: Vec<&str> = words.split('|').collect();
    words[rng.usize(..words.len())]
}

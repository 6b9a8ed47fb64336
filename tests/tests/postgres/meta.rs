//! The field `meta`: PostgreSQL stores every value that netagg accepts, and returns it with the same meaning. netagg rejects no
//! value that PostgreSQL would store.

use netagg_core::ports::{EventStore, TimelineFilter, TimelineQuery};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Event, EventFields, InvalidKind, MAX_DEPTH, Meta, Timestamp, UserId};
use netagg_pg::PgEventStore;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sqlx::{Connection, PgConnection};

use super::{Fresh, events};

/// `json` converted to `jsonb` and back to text. Returns `None` if PostgreSQL rejects it.
async fn jsonb(connection: &mut PgConnection, json: &str) -> Option<String> {
    let result = sqlx::query_scalar("SELECT $1::text::jsonb::text").bind(json).fetch_one(connection).await;
    match result {
        Ok(text) => Some(text),
        // The codes of class 22 are data exceptions: the text is not accepted.
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("22")) => None,
        Err(error) => panic!("{error}"),
    }
}

fn nested(levels: usize) -> String {
    format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
}

/// JSON texts at the limits of the values that can be stored.
fn edges() -> Vec<String> {
    let mut edges: Vec<String> = [
        "0e131072",
        "1e131071",
        "1e131072",
        "9.9e131071",
        "0.1e131072",
        "0.01e131073",
        "1e-16383",
        "1e-16384",
        "1.0e-16382",
        "1.0e-16383",
        "0e-16384",
        "0.0e-16383",
        "-0",
        "-0.0",
        "1E+5",
        "1e200000",
        "1e1073741822",
        "0e1073741822",
        "0e1073741823",
        "1e-1073741823",
        "0e-1073741823",
        "1e2147483648",
        "0e2147483648",
        "0e-2147483649",
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "0e99999999999999999999",
        "1e0000000000000000000000005",
        "12345678901234567890123456789.123456789012345678901234567890",
        "100000e131066",
        "100000e131067",
    ]
    .iter()
    .map(|number| format!("{{\"a\":{number}}}"))
    .collect();
    edges.extend([131_071, 131_072, 131_073].map(|digits| format!("{{\"a\":{}}}", "7".repeat(digits))));
    edges.extend([16_382, 16_383, 16_384].map(|digits| format!("{{\"a\":0.{}1}}", "0".repeat(digits - 1))));
    edges.extend([16_383, 16_384].map(|digits| format!("{{\"a\":1.{}}}", "0".repeat(digits))));
    edges.extend([16_384].map(|digits| format!("{{\"a\":1.{}e1}}", "0".repeat(digits))));
    edges.extend(
        [
            r#""\u0000""#,
            r#""\\u0000""#,
            r#""\\\u0000""#,
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            r#""\ud83d\ude00""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ud83dx""#,
            r#""\ud83d\\ude00""#,
            r#""\uFFFF\uFFFE\u007f\u0001""#,
            r#""\/\b\f\n\r\t""#,
            "\"\u{7f}\u{85}\u{2028}\u{10FFFF}\"",
            "\"\"",
        ]
        .iter()
        .flat_map(|string| [format!("{{\"a\":{string}}}"), format!("{{{string}:1}}")]),
    );
    edges.extend([nested(1), nested(MAX_DEPTH - 1), "{}".into(), " { \"a\" : [ ] , \"a\":{ }} \r\n\t".into()]);
    edges
}

#[tokio::test]
async fn netagg_and_jsonb_agree_on_edge_cases() {
    let fresh = Fresh::empty().await;
    let mut connection = fresh.connection().await;
    for json in edges() {
        agree(&mut connection, &json).await;
    }
    assert_eq!(Meta::parse(&nested(MAX_DEPTH)).unwrap_err().kind(), InvalidKind::TooDeep);
}

async fn agree(connection: &mut PgConnection, json: &str) {
    let shown = &json[..json.floor_char_boundary(200)];
    match (Meta::parse(json), jsonb(connection, json).await) {
        (Ok(meta), Some(stored)) => {
            assert_eq!(Meta::parse(&stored).expect("the stored text can be read"), meta, "{shown}");
        }
        (Err(_), None) => {}
        (Ok(_), None) => panic!("netagg accepts it, but jsonb rejects it: {shown}"),
        // Later versions of PostgreSQL accept a few more texts, such as a zero with any exponent. The texts that netagg accepts
        // must not depend on the version.
        (Err(_), Some(_)) if connection.server_version_num().is_some_and(|version| version >= 160_000) => {}
        (Err(error), Some(_)) => panic!("netagg rejects it, but jsonb accepts it: {shown}: {error}"),
    }
}

/// The text of a number, often near the limits.
fn number() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![
        4 => Just(String::new()),
        4 => (-40_i64..40).prop_map(|exponent| format!("e{exponent}")),
        1 => (16_370_i64..16_400).prop_map(|exponent| format!("E-{exponent}")),
        1 => (131_060_i64..131_080).prop_map(|exponent| format!("e+{exponent}")),
        1 => any::<i64>().prop_map(|exponent| format!("e{exponent}")),
    ];
    ("-?(0|[1-9][0-9]{0,24})", "(\\.[0-9]{1,20})?", exponent)
        .prop_map(|(integer, fraction, exponent)| format!("{integer}{fraction}{exponent}"))
}

/// The text of a string: any characters, escaped or not. Surrogates are mostly in pairs.
fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => any::<char>().prop_filter("to be escaped", |c| *c >= ' ' && *c != '"' && *c != '\\').prop_map(String::from),
        2 => any::<char>().prop_map(|c| {
            c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>()
        }),
        1 => prop::sample::select(vec!["\\\"", "\\\\", "\\/", "\\b", "\\n"]).prop_map(String::from),
        1 => prop_oneof![9 => 1_u16..0xd800, 1 => Just(0), 1 => 0xd800_u16..0xe000].prop_map(|unit| format!("\\u{unit:04X}")),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn object() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => number(),
        3 => string(),
        1 => prop::sample::select(vec!["true", "false", "null", "{}", "[]"]).prop_map(String::from),
    ];
    let value = leaf.prop_recursive(5, 24, 4, |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..4).prop_map(|values| format!("[ {}]", values.join(", "))),
            entries(value),
        ]
    });
    entries(value)
}

/// An object whose keys may repeat.
fn entries(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let key =
        prop_oneof![prop::sample::select(vec!["\"a\"", "\"\\u0061\"", "\"bb\""]).prop_map(String::from), string()];
    prop::collection::vec((key, value), 0..4).prop_map(|entries| {
        let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key} :{value}")).collect();
        format!("{{{}}}", entries.join(","))
    })
}

/// For any JSON, netagg and `jsonb` agree, and an accepted value is unchanged after it was stored in a batch.
#[tokio::test]
async fn every_accepted_meta_is_stored_and_returned_unchanged() {
    let fresh = Fresh::migrated().await;
    let mut connection = PgConnection::connect(fresh.database.url()).await.unwrap();
    let mut runner = TestRunner::default();
    let mut generated = edges();
    generated.extend((0..2_000).map(|_| object().new_tree(&mut runner).unwrap().current()));

    let mut accepted = Vec::new();
    for (id, json) in generated.iter().enumerate() {
        agree(&mut connection, json).await;
        if let Ok(meta) = Meta::parse(json) {
            let plain = event(EventTemplate { id: id as u128, ..EventTemplate::default() });
            accepted.push(Event::new(EventFields { meta: Some(meta), ..plain.into_fields() }).unwrap());
        }
    }
    assert!(accepted.len() > generated.len() / 2, "{} of {} accepted", accepted.len(), generated.len());
    assert!(accepted.len() < generated.len(), "nothing was rejected");

    let store = PgEventStore::new(fresh.postgres.clone());
    assert_eq!(store.store(&events(accepted.clone())).await.unwrap().new, accepted.len() as u64);
    let filter = TimelineFilter {
        user_id: UserId::new("user-1").unwrap(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        event_type: None,
    };
    let found =
        store.timeline(&TimelineQuery { filter, after: None, limit: 10_000, max_bytes: u64::MAX }).await.unwrap();
    assert_eq!(found, accepted, "events of the same instant and source are in the order of their ids");
}

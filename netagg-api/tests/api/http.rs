//! The HTTP API.

use std::io::Read;
use std::time::Duration;

use netagg_api::ApiLimits;
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Event, EventType, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http_client::{get, get_ok, request, request_with, send};
use crate::servers::{NOW, SECRET, SOON, Servers, StoreFailure, limits};

const MAX: u64 = i64::MAX as u64;

fn sms(id: u128, started_at: &str) -> Event {
    event(EventTemplate { id, event_type: EventType::SmsSent, started_at, ..EventTemplate::default() })
}

fn ids(page: &Value) -> Vec<u128> {
    let items = page["items"].as_array().expect("items");
    let id = |item: &Value| u128::from_str_radix(&item["event_id"].as_str().expect("an id").replace('-', ""), 16);
    items.iter().map(|item| id(item).expect("hexadecimal")).collect()
}

#[tokio::test]
async fn detail_has_every_field() {
    let servers = Servers::start().await;
    servers
        .add([
            json!({"event_id": "550E8400-E29B-41D4-A716-446655440000", "source_id": "provider-1", "user_id": "123",
                "type": "CALL_OUT", "started_at": "2025-10-20T15:34:56.250+03:00", "ended_at": "2025-10-20T12:56:00Z",
                "duration_sec": 127, "bytes_up": 1, "bytes_down": MAX, "meta": {"cell": "A1"}}),
            json!({"event_id": "00000000-0000-0000-0000-000000000001", "source_id": "ж", "user_id": "123",
                "type": "DATA", "started_at": "2025-10-20T00:00:00Z"}),
        ])
        .await;
    let response = get(servers.http, "/api/v1/users/123/detail").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("private, no-cache"));
    // By default the range is the last 30 days.
    let expected = concat!(
        r#"{"user_id":"123","from":"2025-10-01T12:00:00Z","to":"2025-10-31T12:00:00Z","items":["#,
        r#"{"event_id":"550e8400-e29b-41d4-a716-446655440000","type":"CALL_OUT","#,
        r#""started_at":"2025-10-20T12:34:56.25Z","ended_at":"2025-10-20T12:56:00Z","duration_sec":127,"#,
        r#""bytes_up":1,"bytes_down":9223372036854775807,"meta":{"cell":"A1"},"source_id":"provider-1"},"#,
        r#"{"event_id":"00000000-0000-0000-0000-000000000001","type":"DATA","#,
        r#""started_at":"2025-10-20T00:00:00Z","ended_at":null,"duration_sec":null,"#,
        r#""bytes_up":0,"bytes_down":0,"meta":{},"source_id":"ж"}"#,
        r#"],"next_cursor":null,"total_count":2}"#,
    );
    assert_eq!(response.body, expected);
}

#[tokio::test]
async fn meta_keeps_every_digit() {
    let servers = Servers::start().await;
    let meta = r#"{"n":12345678901234567890123.4500,"e":1E400,"text":"\u0436"}"#;
    servers.add_events(vec![event(EventTemplate { meta: Some(meta), ..EventTemplate::default() })]).await;
    let response = get(servers.http, "/api/v1/users/user-1/detail?to=2025-10-21T00:00:00Z").await;
    assert!(response.body.contains(&format!(r#""meta":{meta},"#)), "{}", response.body);
    // The response from the cache is the same.
    assert_eq!(get(servers.http, "/api/v1/users/user-1/detail?to=2025-10-21T00:00:00Z").await.body, response.body);
}

#[tokio::test]
async fn ranges_filters_and_defaults() {
    let servers = Servers::start().await;
    let mut events: Vec<_> = (0..150).map(|id| sms(id, "2025-10-20T00:00:00Z")).collect();
    events.push(event(EventTemplate { id: 500, started_at: "2025-10-20T00:00:01Z", ..EventTemplate::default() }));
    events.push(sms(501, "2025-10-01T11:59:59Z"));
    servers.add_events(events).await;

    let page = get_ok(servers.http, "/api/v1/users/user-1/detail").await;
    assert_eq!(ids(&page).len(), 100);
    assert_eq!(ids(&page)[..3], [500, 0, 1]);
    assert_eq!(page["total_count"], 151, "the event of 30 days and 1 s ago is outside the range");

    for (query, total, from, to) in [
        ("type=CALL_OUT", 1, "2025-10-01T12:00:00Z", NOW),
        ("type=DATA", 0, "2025-10-01T12:00:00Z", NOW),
        // Only `to`: 30 days before it.
        ("to=2025-10-20T00:00:01Z", 151, "2025-09-20T00:00:01Z", "2025-10-20T00:00:01Z"),
        ("from=2025-10-20T00:00:01Z", 1, "2025-10-20T00:00:01Z", NOW),
        (
            "from=2025-10-20T03:00:00%2B03:00&to=2025-10-20t00:00:01z",
            150,
            "2025-10-20T00:00:00Z",
            "2025-10-20T00:00:01Z",
        ),
        ("from=2025-10-20T00:00:00Z&to=2025-10-20T00:00:00Z", 0, "2025-10-20T00:00:00Z", "2025-10-20T00:00:00Z"),
        ("&limit=1000&&", 151, "2025-10-01T12:00:00Z", NOW),
    ] {
        let page = get_ok(servers.http, &format!("/api/v1/users/user-1/detail?{query}")).await;
        assert_eq!(page["total_count"], total, "{query}");
        assert_eq!((&page["from"], &page["to"]), (&json!(from), &json!(to)), "{query}");
    }
    let empty = get_ok(servers.http, "/api/v1/users/unknown/detail").await;
    assert_eq!((&empty["items"], &empty["total_count"]), (&json!([]), &json!(0)));
    assert_eq!(empty["next_cursor"], Value::Null);
}

#[tokio::test]
async fn every_valid_user_id_can_be_requested() {
    let servers = Servers::start().await;
    let longest = "😀".repeat(64);
    for (user, path) in [
        ("a/b?c#d%e f+g", "a%2Fb%3Fc%23d%25e%20f+g"),
        ("жук", "%D0%B6%d1%83%D0%BA"),
        ("жук", "жук"),
        (longest.as_str(), &"%F0%9F%98%80".repeat(64)),
        ("..", ".."),
        ("\u{1}\n", "%01%0A"),
    ] {
        let page = get_ok(servers.http, &format!("/api/v1/users/{path}/detail")).await;
        assert_eq!(page["user_id"], user);
    }
}

#[tokio::test]
async fn paging_neither_skips_nor_repeats_while_events_arrive() {
    // Events with the same time, ordered by source and id.
    let stored: Vec<_> = (0..30)
        .map(|n| {
            event(EventTemplate {
                id: 1_000 - n,
                source: ["b", "a", "ж"][n as usize % 3],
                started_at: ["2025-10-20T00:00:00Z", "2025-10-20T00:00:00.000001Z"][n as usize / 15],
                user: "tied",
                ..EventTemplate::default()
            })
        })
        .collect();
    let mut expected: Vec<_> = stored.iter().map(position).collect();
    expected.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| (&one.1, &one.2).cmp(&(&other.1, &other.2))));

    for limit in [1, 2, 7, 30, 1_000] {
        let servers = Servers::start().await;
        servers.add_events(stored.clone()).await;
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get_ok(servers.http, &format!("/api/v1/users/tied/detail?limit={limit}{cursor}")).await;
            assert_eq!((&page["from"], &page["to"]), (&json!("2025-10-01T12:00:00Z"), &json!(NOW)));
            seen.extend(page["items"].as_array().expect("items").iter().map(|item| {
                let text = |name: &str| item[name].as_str().expect("text").to_owned();
                (text("started_at").parse().expect("a time"), text("source_id"), text("event_id"))
            }));
            // New events before the position of the cursor, one of them with the same time, and one event after the range.
            let n = seen.len() as u128;
            let new = |id, source, started_at| {
                event(EventTemplate { id, source, started_at, user: "tied", ..EventTemplate::default() })
            };
            servers
                .add_events(vec![
                    new(2_000 + n, "a", "2025-10-25T00:00:00Z"),
                    new(2_000 + n, "A", "2025-10-20T00:00:00.000001Z"),
                    new(2_000 + n, "b", NOW),
                ])
                .await;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
}

/// The sort key of an event.
fn position(event: &Event) -> (Timestamp, String, String) {
    let fields = event.fields();
    (fields.started_at, fields.source_id.to_string(), fields.event_id.to_string())
}

#[tokio::test]
async fn a_cursor_is_valid_only_for_its_own_listing() {
    let servers = Servers::start().await;
    servers.add_events((0..3).map(|id| sms(id, "2025-10-20T00:00:00Z")).collect()).await;
    let range = "from=2025-10-01T00:00:00Z&to=2025-10-21T00:00:00Z";
    let of = format!("/api/v1/users/user-1/detail?{range}");
    let page = get_ok(servers.http, &format!("{of}&limit=2")).await;
    let cursor = page["next_cursor"].as_str().expect("a cursor").to_owned();
    // The limit may change: it does not belong to the listing.
    assert_eq!(ids(&get_ok(servers.http, &format!("{of}&cursor={cursor}")).await), [2]);

    // A valid cursor of another listing is named together with other wrong parameters.
    let other = format!("/api/v1/users/user-2/detail?{range}&cursor={cursor}&limit=0&who=me");
    assert_eq!(get(servers.http, &other).await.wrong_parameters(), ["who", "limit", "cursor"]);

    let mut forged = cursor.clone();
    forged.replace_range(5..6, if &cursor[5..6] == "A" { "B" } else { "A" });
    for target in [
        format!("/api/v1/users/user-2/detail?{range}&cursor={cursor}"),
        format!("{of}&type=SMS_SENT&cursor={cursor}"),
        format!("/api/v1/users/user-1/detail?cursor={cursor}"),
        format!("/api/v1/users/user-1/detail?from=2025-10-01T00:00:00Z&to=2025-10-22T00:00:00Z&cursor={cursor}"),
        format!("{of}&cursor={forged}"),
        format!("{of}&cursor={}", &cursor[..cursor.len() - 1]),
        format!("{of}&cursor={cursor}A"),
        format!("{of}&cursor=%00"),
        format!("{of}&cursor=next"),
    ] {
        assert_eq!(get(servers.http, &target).await.wrong_parameters(), ["cursor"], "{target}");
    }
}

#[tokio::test]
async fn every_wrong_parameter_is_named() {
    let servers = Servers::start().await;
    let detail = |query: &str| format!("/api/v1/users/u/detail?{query}");
    let totals = |query: &str| format!("/api/v1/aggregates?granularity=DAY&{query}");
    let user = |user: &str| format!("/api/v1/users/{user}/detail");
    let user_totals = |query: &str| format!("/api/v1/users/u/aggregates?granularity=DAY&{query}");
    for (target, wrong) in [
        (user(""), vec!["user_id"]),
        (user("%00"), vec!["user_id"]),
        (user("%zz"), vec!["user_id"]),
        (user("%FF"), vec!["user_id"]),
        (user(&"x".repeat(65)), vec!["user_id"]),
        (detail("from="), vec!["from"]),
        (detail("from"), vec!["from"]),
        (detail("from=2025-10-20"), vec!["from"]),
        (detail("from=2025-10-20T12:34:56"), vec!["from"]),
        (detail("from=2025-10-20T12:34:56+03:00"), vec!["from"]),
        (detail("from=2025-02-30T12:34:56Z"), vec!["from"]),
        (detail("to=now"), vec!["to"]),
        (detail("from=2025-10-20T00:00:01Z&to=2025-10-20T00:00:00Z"), vec!["from"]),
        (detail("limit=0"), vec!["limit"]),
        (detail("limit=1001"), vec!["limit"]),
        (detail("limit=-1"), vec!["limit"]),
        (detail("limit=%2B5"), vec!["limit"]),
        (detail("limit=5.0"), vec!["limit"]),
        (detail("limit=99999999999999999999"), vec!["limit"]),
        (detail("limit=%20"), vec!["limit"]),
        (detail("type=call_out"), vec!["type"]),
        (detail("type=CALL"), vec!["type"]),
        (detail("type=CALL_OUT,DATA"), vec!["type"]),
        (detail("type=%E0%A4%A"), vec!["type"]),
        (detail("type=%FF"), vec!["type"]),
        (detail("cursor="), vec!["cursor"]),
        (detail("offset=5"), vec!["offset"]),
        (detail("user_id=u"), vec!["user_id"]),
        (detail("granularity=DAY"), vec!["granularity"]),
        (detail("Type=DATA"), vec!["Type"]),
        (detail("=5"), vec![""]),
        (detail("type=DATA&type=DATA"), vec!["type"]),
        (detail("ty%70e=DATA&type=DATA"), vec!["type"]),
        (detail("limit=0&from=x&to=&type=y&who=me&who=me"), vec!["to", "who", "from", "limit", "type"]),
        // Wrong values, and values that contradict each other, in one request.
        (detail("limit=0&cursor=next&from=x"), vec!["from", "cursor", "limit"]),
        (
            detail("limit=0&cursor=next&from=2025-10-21T00:00:00Z&to=2025-10-20T00:00:00Z"),
            vec!["cursor", "limit", "from"],
        ),
        (detail("type=x&cursor=AQ&from=2025-10-21T00:00:00Z&to=2025-10-20T00:00:00Z"), vec!["cursor", "type", "from"]),
        (detail("limit=0&who=me&from=2025-10-21T00:00:00Z&to=2025-10-20T00:00:00Z"), vec!["who", "limit", "from"]),
        (totals("type=SMS&from=2025-10-21&to=2025-10-20"), vec!["type", "from"]),
        ("/api/v1/aggregates".to_owned(), vec!["granularity"]),
        ("/api/v1/aggregates?granularity=".to_owned(), vec!["granularity"]),
        ("/api/v1/aggregates?granularity=day".to_owned(), vec!["granularity"]),
        (
            "/api/v1/aggregates?granularity=HOUR&from=1&to=2&type=3".to_owned(),
            vec!["granularity", "from", "to", "type"],
        ),
        (totals("granularity=MONTH"), vec!["granularity"]),
        (totals("from=2025-10"), vec!["from"]),
        (totals("from=2025-10-20T00:00:00Z"), vec!["from"]),
        (totals("to=2025-02-29"), vec!["to"]),
        (totals("to=0000-01-01"), vec!["to"]),
        (totals("from=2025-10-21&to=2025-10-20"), vec!["from"]),
        (totals("from=2015-10-20&to=2025-10-21"), vec!["from"]),
        (totals("limit=5"), vec!["limit"]),
        (totals("type="), vec!["type"]),
        (totals("tz="), vec!["tz"]),
        (totals("tz=europe/moscow"), vec!["tz"]),
        (totals("tz=%2B03:00"), vec!["tz"]),
        (totals("tz=Mars/Olympus&from=2025-10-21&to=2025-10-20"), vec!["tz", "from"]),
        (totals("tz=Europe/Moscow&from=2025-07-01&to=2025-10-02"), vec!["from"]),
        (detail("tz=Europe/Moscow"), vec!["tz"]),
        ("/api/v1/users//aggregates?granularity=DAY".to_owned(), vec!["user_id"]),
        ("/api/v1/users/%00/aggregates".to_owned(), vec!["user_id", "granularity"]),
        (user_totals("from=2015-10-20&to=2025-10-21&tz=Europe/Moscow"), vec!["from"]),
        (user_totals("limit=5&type=SMS&tz=Mars/Olympus"), vec!["limit", "type", "tz"]),
    ] {
        assert_eq!(get(servers.http, &target).await.wrong_parameters(), wrong, "{target}");
    }
    let response = get(servers.http, &detail("limit=0&type=%3Cb%3E")).await;
    assert_eq!(
        response.json(),
        json!({
            "type": "about:blank", "title": "Bad Request", "status": 400,
            "detail": "limit: found 0; accepted: an integer from 1 to 1000; type: found <b>; accepted: CALL_OUT, \
                CALL_IN, SMS_SENT, SMS_RECEIVED or DATA",
            "errors": [
                {"parameter": "limit", "found": "0", "accepted": "an integer from 1 to 1000"},
                {"parameter": "type", "found": "<b>", "accepted": "CALL_OUT, CALL_IN, SMS_SENT, SMS_RECEIVED or DATA"},
            ],
        })
    );
    let response = get(servers.http, &detail("who=me&limit=5&limit=6&cursor=next")).await;
    assert_eq!(
        response.problem()["errors"],
        json!([
            {"parameter": "who", "found": "an unknown parameter, me", "accepted": "from, to, cursor, limit, type"},
            {"parameter": "limit", "found": "5, then 6", "accepted": "one value"},
            {"parameter": "cursor", "found": "next", "accepted": "next_cursor of a page of the same user, range and type"},
        ])
    );
    // The response stays small even if many parameters are wrong.
    let many: String = (0..800).map(|n| format!("&p{n}=1")).collect();
    assert_eq!(get(servers.http, &detail(&many)).await.wrong_parameters().len(), 16);
    let cut = format!("{}…", "x".repeat(40));
    assert_eq!(get(servers.http, &detail(&"x".repeat(5_000))).await.wrong_parameters(), [cut]);
}

#[tokio::test]
async fn totals_have_every_field_in_order() {
    let servers = Servers::start().await;
    let of = |id, event_type, started_at, bytes| {
        event(EventTemplate {
            id,
            event_type,
            started_at,
            bytes_up: bytes,
            bytes_down: bytes,
            ..EventTemplate::default()
        })
    };
    servers
        .add_events(vec![
            of(1, EventType::Data, "2025-10-20T23:59:59.999999Z", MAX),
            of(2, EventType::Data, "2025-10-20T00:00:00Z", MAX),
            of(3, EventType::Data, "2025-10-20T00:00:00Z", MAX),
            of(4, EventType::SmsSent, "2025-10-20T12:00:00Z", 0),
            of(5, EventType::CallOut, "2025-10-21T00:00:00Z", 5),
            of(6, EventType::CallOut, "2025-10-01T23:59:59Z", 7),
            of(7, EventType::CallOut, "2024-10-01T23:59:59Z", 9),
        ])
        .await;
    let response = get(servers.http, "/api/v1/aggregates?granularity=DAY").await;
    // By default the range is the last 30 days, including today. Sums beyond 64 bits are exact.
    let expected = concat!(
        r#"{"granularity":"DAY","from":"2025-10-02","to":"2025-10-31","tz":"UTC","complete_through":null,"data":["#,
        r#"{"date":"2025-10-20","type":"SMS_SENT","count_events":1,"sum_duration":60,"sum_bytes_up":0,"sum_bytes_down":0},"#,
        r#"{"date":"2025-10-20","type":"DATA","count_events":3,"sum_duration":180,"#,
        r#""sum_bytes_up":27670116110564327421,"sum_bytes_down":27670116110564327421},"#,
        r#"{"date":"2025-10-21","type":"CALL_OUT","count_events":1,"sum_duration":60,"sum_bytes_up":5,"sum_bytes_down":5}"#,
        r#"]}"#,
    );
    assert_eq!(response.body, expected);
    assert_eq!(get(servers.http, "/api/v1/aggregates?granularity=DAY").await.body, expected, "from the cache");
    let of_user = get(servers.http, "/api/v1/users/user-1/aggregates?granularity=DAY").await;
    assert_eq!(of_user.body, expected.replacen('{', r#"{"user_id":"user-1","#, 1), "all events are of one user");
    assert_eq!(of_user.header("cache-control"), Some("private, no-cache"));
    let empty = get_ok(servers.http, "/api/v1/users/unknown/aggregates?granularity=MONTH&tz=Europe/Moscow").await;
    assert_eq!((&empty["data"], &empty["tz"]), (&json!([]), &json!("Europe/Moscow")));

    for (query, expected) in [
        ("granularity=MONTH&from=2024-10-31&to=2025-10-01&type=CALL_OUT", vec![("2024-10-01", 1), ("2025-10-01", 2)]),
        ("granularity=MONTH&from=2025-10-31&to=2025-10-01&type=CALL_OUT", vec![("2025-10-01", 2)]),
        ("granularity=DAY&from=2025-10-21&to=2025-10-21", vec![("2025-10-21", 1)]),
        ("granularity=DAY&to=2025-10-01&type=CALL_OUT", vec![("2025-10-01", 1)]),
        ("granularity=DAY&type=CALL_IN", vec![]),
        ("granularity=DAY&from=2015-10-31&to=2025-10-30&type=SMS_SENT", vec![("2025-10-20", 1)]),
    ] {
        let response = get_ok(servers.http, &format!("/api/v1/aggregates?{query}")).await;
        let rows: Vec<_> = response["data"].as_array().expect("data").iter().collect();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (row["date"].as_str().expect("a date"), row["count_events"].as_u64().expect("a count")))
            .collect();
        assert_eq!(rows, expected, "{query}");
    }
}

#[tokio::test]
async fn a_page_ends_before_it_exceeds_the_size_limit() {
    let servers = Servers::start().await;
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000_000));
    let large = |id| event(EventTemplate { id, meta: Some(&meta), ..EventTemplate::default() });
    servers.add_events((0..10).map(large).collect()).await;
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get_ok(servers.http, &format!("/api/v1/users/user-1/detail?limit=1000{cursor}")).await;
        assert_eq!(page["total_count"], 10);
        pages.push(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
}

#[tokio::test]
async fn a_response_that_the_client_already_has_is_not_sent_again() {
    let servers = Servers::start().await;
    servers.add_events(vec![sms(1, "2025-10-20T00:00:00Z")]).await;
    for target in ["/api/v1/aggregates?granularity=DAY", "/api/v1/users/user-1/detail"] {
        let whole = get(servers.http, target).await;
        assert_eq!(whole.header("cache-control"), Some("private, no-cache"));
        assert_eq!(whole.header("vary"), Some("accept, accept-encoding"));
        let tag = whole.header("etag").expect("a tag");
        assert!(tag.starts_with("W/\""), "{tag}: the same tag for every encoding");
        for method in ["GET", "HEAD"] {
            for known in [tag, &tag[2..], &format!("\"other\", {tag}"), "*"] {
                let again = request_with(servers.http, method, target, &format!("if-none-match: {known}\r\n")).await;
                assert_eq!((again.status, &*again.body), (304, ""), "{known}");
                for header in ["etag", "cache-control", "vary"] {
                    assert_eq!(again.header(header), whole.header(header), "{header}");
                }
            }
            for other in ["\"other\"", "no tag", ""] {
                let again = request_with(servers.http, method, target, &format!("if-none-match: {other}\r\n")).await;
                assert_eq!(again.status, 200, "{other}");
            }
        }
    }
    let target = "/api/v1/users/user-1/detail";
    let if_known = format!("if-none-match: {}\r\n", get(servers.http, target).await.header("etag").expect("a tag"));
    servers.add_events(vec![sms(2, "2025-10-20T00:00:00Z")]).await;
    assert_eq!(request_with(servers.http, "GET", target, &if_known).await.status, 200, "the response has changed");
    let wrong = request_with(servers.http, "GET", "/api/v1/aggregates", "if-none-match: *\r\n").await;
    assert_eq!((wrong.status, wrong.header("etag"), wrong.header("cache-control")), (400, None, Some("no-store")));
}

#[tokio::test]
async fn large_responses_are_compressed_as_the_client_prefers() {
    let servers = Servers::start().await;
    servers.add_events((0..100).map(|id| sms(id, "2025-10-20T00:00:00Z")).collect()).await;
    let target = "/api/v1/users/user-1/detail";
    let accept = async |target, encodings: &str| {
        request_with(servers.http, "GET", target, &format!("accept-encoding: {encodings}\r\n")).await
    };
    let plain = get(servers.http, target).await;
    assert_eq!(plain.header("content-encoding"), None);
    for (accepted, encoding) in
        [("gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), ("gzip;q=0.1, zstd;q=0.9, br;q=0", "zstd")]
    {
        let response = accept(target, accepted).await;
        assert_eq!(response.header("content-encoding"), Some(encoding));
        assert_eq!(response.header("vary"), Some("accept, accept-encoding"));
        assert_eq!(response.header("etag"), plain.header("etag"));
        let body = response.whole().expect("whole");
        assert!(body.len() * 5 < plain.body.len(), "{encoding}: {} bytes", body.len());
        let mut text = String::new();
        match encoding {
            "gzip" => flate2::read::GzDecoder::new(&*body).read_to_string(&mut text),
            "br" => brotli_decompressor::Decompressor::new(&*body, 4_096).read_to_string(&mut text),
            _ => zstd::Decoder::new(&*body).expect("zstd").read_to_string(&mut text),
        }
        .expect("decoded");
        assert_eq!(text, plain.body);
    }
    for encodings in ["identity", "", "deflate", "gzip;q=0"] {
        assert_eq!(accept(target, encodings).await.body, plain.body, "{encodings}");
    }
    let small = accept("/api/v1/users/unknown/detail", "gzip").await;
    assert_eq!((small.header("content-encoding"), small.header("vary")), (None, Some("accept, accept-encoding")));
    for (target, encodings) in [(target, "identity;q=0"), (target, "*;q=0"), ("/api/v1/aggregates", "*;q=0")] {
        let rejected = accept(target, encodings).await;
        assert_eq!(rejected.status, 406, "{encodings}");
        let detail = rejected.problem()["detail"].as_str().expect("a detail").to_owned();
        assert_eq!(detail, format!("Accept-Encoding: found {encodings}; available: gzip, br, zstd or identity"));
    }
}

#[tokio::test]
async fn an_unknown_format_is_rejected() {
    let servers = Servers::start().await;
    for (target, accept, available) in [
        ("/api/v1/users/u/detail", "text/html", "application/json, application/x-ndjson, text/csv"),
        ("/api/v1/users/u/detail", "application/json;q=0", "application/json, application/x-ndjson, text/csv"),
        ("/api/v1/aggregates?granularity=DAY", "text/csv", "application/json"),
    ] {
        let response = request_with(servers.http, "GET", target, &format!("accept: {accept}\r\n")).await;
        assert_eq!(response.status, 406, "{accept}");
        assert_eq!(response.problem()["detail"], format!("Accept: found {accept}; available: {available}"));
    }
    let browser = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    let response = request_with(servers.http, "GET", "/api/v1/users/u/detail", browser).await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_rejected() {
    let servers = Servers::start().await;
    for target in [
        "/",
        "/api/v1/aggregates/",
        "/api/v1/users/u",
        "/api/v1/users/u/detail/",
        "/api/v2/aggregates",
        "//api/v1/aggregates",
        "/api//v1/aggregates",
        "/API/v1/aggregates",
        "/api/v1/./aggregates",
        "/api/v1/%2e%2e/v1/aggregates",
        "/api/v1%2Faggregates",
        "/api/v1/users/a/b/detail",
        "/etc/passwd",
        "/api/v1/users/u/detail;v=1",
        "http://other/api/v1/none",
    ] {
        let response = get(servers.http, target).await;
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.problem()["title"], "Not Found");
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let response = request(servers.http, method, "/api/v1/aggregates?granularity=DAY").await;
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("GET,HEAD"), "{response:?}");
        assert_eq!(response.problem()["title"], "Method Not Allowed");
    }
    for target in ["/api/v1/aggregates?granularity=DAY", "/api/v1/users/u/detail", "/api/v1/aggregates", "/"] {
        let (of_get, of_head) = (get(servers.http, target).await, request(servers.http, "HEAD", target).await);
        assert_eq!(of_head.body, "");
        assert_eq!(of_head.status, of_get.status);
        for header in ["content-type", "content-length"] {
            assert_eq!(of_head.header(header), of_get.header(header), "{target}");
        }
    }
}

#[tokio::test]
async fn too_large_requests_are_rejected() {
    let servers = Servers::start().await;
    let long = get(servers.http, &format!("/api/v1/aggregates?granularity={}", "x".repeat(9_000))).await;
    assert_eq!((long.status, &long.problem()["title"]), (414, &json!("URI Too Long")));
    let large = "POST /api/v1/aggregates HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n";
    let large = send(servers.http, large).await;
    assert_eq!((large.status, &large.problem()["title"]), (413, &json!("Payload Too Large")));
    let longer = get(servers.http, &format!("/api/v1/aggregates?granularity={}", "x".repeat(40_000))).await;
    assert_eq!((longer.status, &longer.problem()["title"]), (414, &json!("URI Too Long")));
    let head = request_with(servers.http, "GET", "/", &format!("x: {}\r\n", "x".repeat(32 * 1_024))).await;
    assert_eq!((head.status, &head.problem()["title"]), (431, &json!("Request Header Fields Too Large")));
    // A much larger head is rejected by hyper, without a problem in the body.
    assert_eq!(request_with(servers.http, "GET", "/", &format!("x: {}\r\n", "x".repeat(100_000))).await.status, 431);
}

#[tokio::test]
async fn errors_of_the_store_reveal_no_internals() {
    let at_once = limits(|limits| limits.request_timeout = Duration::from_millis(50));
    for (failure, limits, status) in [
        (StoreFailure::Unavailable, ApiLimits::default(), 503),
        (StoreFailure::Internal, ApiLimits::default(), 500),
        (StoreFailure::NoAnswer, at_once, 503),
    ] {
        let servers = Servers::start_broken(failure, limits).await;
        for target in ["/api/v1/users/u/detail", "/api/v1/aggregates?granularity=DAY"] {
            let response = get(servers.http, target).await;
            assert_eq!(response.status, status);
            assert_eq!(response.header("retry-after").is_some(), status == 503);
            let problem = response.problem().to_string();
            for word in SECRET.split(' ').chain(["postgres"]) {
                assert!(!problem.contains(word), "{problem}");
            }
        }
        // An invalid request gets 400, also if the store fails.
        assert_eq!(get(servers.http, "/api/v1/aggregates").await.status, 400);
    }
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_leaves_no_connection() {
    let servers = Servers::start().await;
    let mut silent = TcpStream::connect(servers.http).await.expect("connected");
    let mut idle = TcpStream::connect(servers.http).await.expect("connected");
    idle.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sent");
    assert!(idle.read(&mut [0; 4_096]).await.expect("a response") > 0);
    let mut half = TcpStream::connect(servers.http).await.expect("connected");
    half.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
    get(servers.http, "/").await;

    let http = servers.http;
    servers.stop();
    half.write_all(b"host: test\r\n\r\n").await.expect("sent");
    let mut response = Vec::new();
    half.read_to_end(&mut response).await.expect("a response, then the end");
    let response = String::from_utf8_lossy(&response).to_lowercase();
    assert!(response.starts_with("http/1.1 404") && response.contains("connection: close"), "{response}");
    servers.stopped().await;
    for stream in [&mut silent, &mut idle] {
        assert_eq!(stream.read(&mut [0]).await.expect("closed"), 0);
    }
    TcpStream::connect(http).await.expect_err("the port is closed");
}

#[tokio::test]
async fn a_stop_closes_connections_after_the_timeout() {
    let limits = limits(|limits| {
        limits.stop_timeout = Duration::from_millis(50);
        limits.request_timeout = 100 * SOON;
    });
    let servers = Servers::start_broken(StoreFailure::NoAnswer, limits).await;
    let mut stuck = TcpStream::connect(servers.http).await.expect("connected");
    stuck.write_all(b"GET /api/v1/users/u/detail HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sent");
    servers.stopped().await;
    // The connection is closed or reset without a response.
    assert!(!matches!(stuck.read(&mut [0]).await, Ok(1..)));
}

#[tokio::test]
async fn connections_are_limited() {
    let servers = Servers::start_with(limits(|limits| limits.max_connections = 1)).await;
    let first = occupy(&servers).await;

    let http = servers.http;
    let mut second = tokio::spawn(async move { get(http, "/").await });
    tokio::time::timeout(Duration::from_millis(100), &mut second).await.expect_err("it waits for a connection");
    drop(first);
    let response = tokio::time::timeout(SOON, second).await.expect("in time").expect("no panic");
    assert_eq!(response.status, 404);
}

/// Opens the only connection that the limit allows, and keeps it open.
async fn occupy(servers: &Servers) -> TcpStream {
    let mut open = TcpStream::connect(servers.http).await.expect("connected");
    open.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sent");
    assert!(open.read(&mut [0; 4_096]).await.expect("a response") > 0);
    open
}

#[tokio::test]
async fn health_requests_are_served_beyond_the_limit_of_connections() {
    let servers = Servers::start_with(limits(|limits| limits.max_connections = 1)).await;
    let first = occupy(&servers).await;
    // More clients than spare connections. Some of them send nothing, and some request data.
    let http = servers.http;
    let mut silent = Vec::new();
    for _ in 0..ApiLimits::HEALTH_CONNECTIONS / 4 {
        silent.push(TcpStream::connect(http).await.expect("connected"));
    }
    let others: Vec<_> =
        (0..40).map(|_| tokio::spawn(async move { get(http, "/api/v1/aggregates?granularity=DAY").await })).collect();
    for path in ["/healthz", "/readyz", "/healthz"] {
        let response = tokio::time::timeout(SOON, get(http, path)).await.expect("in time");
        assert_eq!((response.status, response.header("connection")), (200, Some("close")), "{path} {response:?}");
    }
    for other in others {
        let response = tokio::time::timeout(SOON, other).await.expect("in time").expect("no panic");
        assert_eq!((response.status, response.header("retry-after")), (503, Some("5")), "{response:?}");
        response.problem();
    }
    drop((first, silent));
    let served = async { while get(http, "/").await.status != 404 {} };
    tokio::time::timeout(SOON, served).await.expect("the connection is free again");
}

#[tokio::test]
async fn overload_is_rejected_soon() {
    let limits = limits(|limits| {
        limits.max_requests = 1;
        limits.request_timeout = 100 * SOON;
    });
    let servers = Servers::start_broken(StoreFailure::NoAnswer, limits).await;
    let path = "/api/v1/aggregates?granularity=DAY";
    let mut first = TcpStream::connect(servers.http).await.expect("connected");
    first.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.expect("sent");
    // The first of the two requests holds the only permit and never ends. The other request is rejected. The two requests
    // differ, because equal requests would share one computation.
    let refused = async {
        tokio::select! {
            response = get(servers.http, "/api/v1/aggregates?granularity=MONTH") => response,
            response = crate::http_client::read(first) => response,
        }
    };
    let response = tokio::time::timeout(SOON, refused).await.expect("one request is rejected");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("5")));
    assert!(response.problem()["detail"].as_str().expect("a text").contains("overloaded"), "{response:?}");
}

#[tokio::test]
async fn a_304_has_no_length() {
    let servers = Servers::start().await;
    for target in
        ["/api/v1/users/u/detail?to=2025-10-01T00:00:00Z", "/api/v1/aggregates?granularity=DAY", "/openapi.json"]
    {
        let whole = get(servers.http, target).await;
        let tag = whole.header("etag").expect("a tag").to_owned();
        let opaque = tag.trim_start_matches("W/").trim_matches('"');
        for method in ["GET", "HEAD"] {
            for known in
                [tag.clone(), format!("W/\"{opaque}-gzip\""), format!("\"a\", \"{opaque}-br\""), "*".to_owned()]
            {
                let headers = format!("if-none-match: {known}\r\n");
                let response = request_with(servers.http, method, target, &headers).await;
                assert_eq!((response.status, response.body.as_str()), (304, ""), "{method} {target} {known}");
                for header in ["content-length", "transfer-encoding", "content-type"] {
                    assert_eq!(response.header(header), None, "{method} {target} {known}: {response:?}");
                }
                assert_eq!(response.header("etag"), Some(&*tag));
            }
            let response = request_with(servers.http, method, target, "if-none-match: \"other\"\r\n").await;
            assert_eq!((response.status, response.header("content-length")), (200, whole.header("content-length")));
        }
    }
}

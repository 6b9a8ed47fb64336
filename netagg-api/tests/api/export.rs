//! Exports over HTTP, and streams over gRPC.

use std::time::Duration;

use netagg_api::ApiLimits;
use netagg_api::proto::GetUserDetailRequest;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Event, EventType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::http_client::{Response, get_ok, read, request_with};
use crate::servers::{SOON, Servers, limits};

const DETAIL: &str = "/api/v1/users/user-1/detail";
const NDJSON: &str = "application/x-ndjson";

async fn export(servers: &Servers, target: &str, format: &str) -> Response {
    request_with(servers.http, "GET", target, &format!("accept: {format}\r\n")).await
}

fn text(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    String::from_utf8(response.whole().expect("whole")).expect("UTF-8")
}

/// `count` events, newest first.
fn many(count: u128) -> Vec<Event> {
    let started_at = |id: u128| format!("2025-10-20T{:02}:{:02}:00Z", 23 - id / 60 % 24, 59 - id % 60);
    (0..count)
        .map(|id| event(EventTemplate { id, started_at: &started_at(id / 10), ..EventTemplate::default() }))
        .collect()
}

/// Adds more events than the buffers of the sockets can hold.
async fn add_much(servers: &Servers) {
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000_000));
    let large = |id| event(EventTemplate { id, meta: Some(&meta), ..EventTemplate::default() });
    servers.add_events((0..60).map(large).collect()).await;
}

#[tokio::test]
async fn ndjson_lines_are_the_events_as_they_were_imported() {
    let servers = Servers::start().await;
    let events = many(2_500);
    servers.add_events(events.clone()).await;
    let response = export(&servers, DETAIL, NDJSON).await;
    assert_eq!(response.header("content-type"), Some(NDJSON));
    assert_eq!((response.header("cache-control"), response.header("etag")), (Some("no-store"), None));
    let decode = |text: &str| -> Vec<Event> {
        text.lines().map(|line| Event::decode(line.as_bytes()).expect("an event")).collect()
    };
    assert_eq!(decode(&text(&response)), events, "all events in order, in the format of an import");

    // An export has the same filters as a page.
    assert_eq!(decode(&text(&export(&servers, &format!("{DETAIL}?limit=3"), NDJSON).await)), events[..3]);
    let cursor = get_ok(servers.http, &format!("{DETAIL}?limit=5")).await["next_cursor"].as_str().map(str::to_owned);
    let rest = format!("{DETAIL}?cursor={}", cursor.expect("a cursor"));
    assert_eq!(decode(&text(&export(&servers, &rest, NDJSON).await)), events[5..]);
    assert_eq!(text(&export(&servers, &format!("{DETAIL}?type=DATA"), NDJSON).await), "");
    let wrong = export(&servers, &format!("{DETAIL}?limit=0&cursor=x&who=me"), NDJSON).await;
    assert_eq!(wrong.wrong_parameters(), ["who", "cursor", "limit"]);
}

#[tokio::test]
async fn csv_has_a_header_and_quotes_special_characters() {
    let servers = Servers::start().await;
    let rich = event(EventTemplate {
        id: 1,
        source: "a \"b\",\r\nc",
        user: "+79161234567",
        event_type: EventType::Data,
        started_at: "2025-10-20T12:00:00.5Z",
        bytes_up: i64::MAX as u64,
        meta: Some(r#"{"a":"1,2"}"#),
        ..EventTemplate::default()
    });
    let plain = event(EventTemplate {
        id: 2,
        source: "=cmd|' /C calc'!A0",
        user: "+79161234567",
        duration_sec: None,
        ..EventTemplate::default()
    });
    servers.add_events(vec![rich, plain]).await;
    let response = export(&servers, "/api/v1/users/+79161234567/detail", "text/csv").await;
    assert_eq!(response.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let expected = concat!(
        "event_id,source_id,user_id,type,started_at,ended_at,duration_sec,bytes_up,bytes_down,meta\r\n",
        "00000000-0000-0000-0000-000000000001,\"a \"\"b\"\",\r\nc\",+79161234567,DATA,2025-10-20T12:00:00.5Z,,60,",
        "9223372036854775807,0,\"{\"\"a\"\":\"\"1,2\"\"}\"\r\n",
        "00000000-0000-0000-0000-000000000002,'=cmd|' /C calc'!A0,+79161234567,CALL_OUT,2025-10-20T12:00:00Z,,,0,0,\r\n",
    );
    assert_eq!(text(&response), expected);
    let empty = text(&export(&servers, "/api/v1/users/unknown/detail", "text/csv").await);
    assert_eq!(empty, expected[..expected.find('\n').expect("a line") + 1]);
    let head = request_with(servers.http, "HEAD", "/api/v1/users/unknown/detail", "accept: text/csv\r\n").await;
    assert_eq!((head.status, &*head.body), (200, ""));
    assert_eq!(head.header("content-type"), response.header("content-type"));
}

#[tokio::test]
async fn an_export_that_fails_half_way_is_aborted() {
    let servers = Servers::start_failing_after(2, ApiLimits::default()).await;
    servers.add_events(many(2_500)).await;
    for encoding in ["", "accept-encoding: gzip\r\n"] {
        let servers = Servers::start_failing_after(2, ApiLimits::default()).await;
        servers.add_events(many(2_500)).await;
        let aborted = request_with(servers.http, "GET", DETAIL, &format!("accept: text/csv\r\n{encoding}")).await;
        assert_eq!((aborted.status, aborted.whole()), (200, None), "the export does not look complete");
        // An export that cannot begin returns an error.
        assert_eq!(export(&servers, DETAIL, NDJSON).await.problem()["status"], 503);
    }
    let mut client = UsageServiceClient::connect(format!("http://{}", servers.grpc)).await.expect("connected");
    let request = GetUserDetailRequest { user_id: "user-1".to_owned(), ..GetUserDetailRequest::default() };
    let mut stream = client.stream_user_detail(request.clone()).await.expect("a stream").into_inner();
    let mut count = 0;
    let status = loop {
        match stream.message().await {
            Ok(Some(message)) => count += message.items.len(),
            Ok(None) => panic!("the stream looks complete"),
            Err(status) => break status,
        }
    };
    assert_eq!((count, status.code()), (2_000, Code::Unavailable));
    assert_eq!(
        client.stream_user_detail(request).await.expect_err("the store is unavailable").code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_stream_returns_the_same_events_as_an_export() {
    let servers = Servers::start().await;
    let events = many(2_500);
    servers.add_events(events.clone()).await;
    let mut client = UsageServiceClient::connect(format!("http://{}", servers.grpc)).await.expect("connected");
    for (limit, expected) in [(0, 2_500), (7, 7)] {
        let request = GetUserDetailRequest { user_id: "user-1".to_owned(), limit, ..GetUserDetailRequest::default() };
        let mut stream = client.stream_user_detail(request).await.expect("a stream").into_inner();
        let mut ids = Vec::new();
        while let Some(message) = stream.message().await.expect("no error") {
            assert!(!message.items.is_empty());
            ids.extend(message.items.into_iter().map(|item| item.event_id));
        }
        let expected: Vec<_> = events[..expected].iter().map(|event| event.fields().event_id.to_string()).collect();
        assert_eq!(ids, expected);
    }
    let wrong = GetUserDetailRequest { limit: -1, cursor: "x".to_owned(), ..GetUserDetailRequest::default() };
    let status = client.stream_user_detail(wrong).await.expect_err("wrong");
    assert_eq!(status.code(), Code::InvalidArgument);
    for name in ["user_id", "limit", "cursor"] {
        assert!(status.message().contains(name), "{status}");
    }
}

async fn begin(servers: &Servers) -> TcpStream {
    let mut stream = TcpStream::connect(servers.http).await.expect("connected");
    let request = format!("GET {DETAIL} HTTP/1.1\r\nhost: test\r\naccept: {NDJSON}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream.readable().await.expect("a response");
    stream
}

/// Retries an export until the only permit for exports is free again.
async fn expect_free_export(servers: &Servers) {
    let retry = async {
        while export(servers, "/api/v1/users/unknown/detail", NDJSON).await.status == 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, retry).await.expect("the permit is free again");
}

#[tokio::test]
async fn exports_are_limited_and_end_if_the_client_disconnects() {
    let limits = limits(|limits| limits.max_exports = 1);
    let servers = Servers::start_failing_after(1_000, limits).await;
    add_much(&servers).await;
    let stream = begin(&servers).await;
    let busy = export(&servers, DETAIL, NDJSON).await;
    assert_eq!((busy.problem()["status"].as_u64(), busy.header("retry-after")), (Some(503), Some("5")));
    // Pages are still served.
    get_ok(servers.http, &format!("{DETAIL}?limit=1")).await;
    drop(stream);
    expect_free_export(&servers).await;
    assert!(
        1_000 - servers.reads_left() < 30,
        "the rest of the events is not read: {} reads",
        1_000 - servers.reads_left()
    );
}

#[tokio::test]
async fn an_export_to_a_stalled_client_is_aborted() {
    let limits = limits(|limits| {
        limits.max_exports = 1;
        limits.idle_timeout = Duration::from_millis(300);
    });
    let servers = Servers::start_failing_after(1_000, limits).await;
    add_much(&servers).await;
    let stalled = begin(&servers).await;
    expect_free_export(&servers).await;
    assert!(
        1_000 - servers.reads_left() < 30,
        "the rest of the events is not read: {} reads",
        1_000 - servers.reads_left()
    );
    assert_eq!(read(stalled).await.whole(), None);
}

#[tokio::test]
async fn a_stalled_client_loses_its_connection() {
    let limits = limits(|limits| {
        limits.max_connections = 1;
        limits.idle_timeout = Duration::from_millis(300);
    });
    let servers = Servers::start_failing_after(1_000, limits).await;
    add_much(&servers).await;
    let _stalled = begin(&servers).await;
    let next = get_ok(servers.http, "/api/v1/users/unknown/detail");
    tokio::time::timeout(SOON, next).await.expect("the connection is free again");
}

#[tokio::test]
async fn untaken_responses_stay_within_the_budget() {
    let limits = limits(|limits| limits.max_untaken_bytes = 32 << 20);
    let servers = Servers::start_with(limits).await;
    add_much(&servers).await;
    let connect = async || {
        let endpoint = Endpoint::from_shared(format!("http://{}", servers.grpc)).expect("an address");
        // Streams that the client does not read stall, but the connection still works.
        let endpoint = endpoint.initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 24);
        UsageServiceClient::new(endpoint.connect().await.expect("connected"))
    };
    let request = || GetUserDetailRequest { user_id: "user-1".to_owned(), ..GetUserDetailRequest::default() };
    let of_unknown_user = || GetUserDetailRequest { user_id: "unknown".to_owned(), ..GetUserDetailRequest::default() };

    let (mut one, mut streams) = (connect().await, Vec::new());
    let rejected = loop {
        match one.stream_user_detail(request()).await {
            Ok(stream) => streams.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (rejected.code(), streams.len()),
        (Code::Unavailable, 3),
        "each stream needs 2 MiB, and a connection may use 8 MiB"
    );
    // A small response still fits, and other connections have their own budget.
    one.get_user_detail(of_unknown_user()).await.expect("a response");
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = connect().await;
        for _ in 0..3 {
            others.push(other.stream_user_detail(request()).await.expect("a response"));
        }
    }
    // The HTTP server has a separate budget.
    get_ok(servers.http, &format!("{DETAIL}?limit=1")).await;
    streams.truncate(2);
    let retry = async {
        while one.stream_user_detail(request()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, retry).await.expect("the budget is free again");
}

#[tokio::test]
async fn a_stop_aborts_an_export() {
    let limits = limits(|limits| limits.stop_timeout = Duration::from_millis(50));
    let servers = Servers::start_with(limits).await;
    add_much(&servers).await;
    let mut stream = begin(&servers).await;
    assert!(stream.read(&mut [0; 100]).await.expect("the beginning") > 0);
    servers.stopped().await;
}

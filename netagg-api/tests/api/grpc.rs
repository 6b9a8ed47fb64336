//! The gRPC API.

use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use netagg_api::ApiLimits;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_api::proto::{
    AggregateRow, GetGlobalAggRequest, GetUserAggRequest, GetUserDetailRequest, GetUserDetailResponse, UsageEvent,
};
use netagg_core::EventType;
use netagg_core::testkit::{EventTemplate, event};
use prost::Message;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt;
use tower::ServiceExt;

use crate::http_client::get_ok;
use crate::servers::{NOW, SECRET, SOON, Servers, StoreFailure, limits};

const MAX: u64 = i64::MAX as u64;
const USAGE: &str = "telecom.v1.UsageService";

async fn channel(servers: &Servers) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", servers.grpc)).expect("an address");
    endpoint.connect().await.expect("connected")
}

async fn client(servers: &Servers) -> UsageServiceClient<Channel> {
    UsageServiceClient::new(channel(servers).await)
}

fn detail_of(user_id: &str) -> GetUserDetailRequest {
    GetUserDetailRequest { user_id: user_id.to_owned(), ..GetUserDetailRequest::default() }
}

fn totals_by(granularity: &str) -> GetGlobalAggRequest {
    GetGlobalAggRequest { granularity: granularity.to_owned(), ..GetGlobalAggRequest::default() }
}

#[tokio::test]
async fn both_transports_return_the_same_data() {
    let servers = Servers::start().await;
    servers
        .add([
            json!({"event_id": "550E8400-E29B-41D4-A716-446655440000", "source_id": "provider-1", "user_id": "123",
                "type": "CALL_OUT", "started_at": "2025-10-20T15:34:56.250+03:00", "ended_at": "2025-10-20T12:56:00Z",
                "duration_sec": i32::MAX, "bytes_up": 1, "bytes_down": MAX, "meta": {"cell": "A1"}}),
            json!({"event_id": "00000000-0000-0000-0000-000000000001", "source_id": "ж", "user_id": "123",
                "type": "DATA", "started_at": "2025-10-20T00:00:00Z", "duration_sec": 0}),
            json!({"event_id": "00000000-0000-0000-0000-000000000002", "source_id": "ж", "user_id": "123",
                "type": "DATA", "started_at": "2025-09-30T00:00:00Z"}),
        ])
        .await;
    let mut client = client(&servers).await;

    let page = client.get_user_detail(detail_of("123")).await.expect("a page").into_inner();
    assert_eq!(
        page.items[0],
        UsageEvent {
            event_id: "550e8400-e29b-41d4-a716-446655440000".to_owned(),
            r#type: "CALL_OUT".to_owned(),
            started_at: "2025-10-20T12:34:56.25Z".to_owned(),
            ended_at: Some("2025-10-20T12:56:00Z".to_owned()),
            duration_sec: Some(i32::MAX),
            bytes_up: 1,
            bytes_down: i64::MAX,
            meta: r#"{"cell":"A1"}"#.to_owned(),
            source_id: "provider-1".to_owned(),
        }
    );
    assert_eq!((page.items[1].ended_at.as_ref(), page.items[1].duration_sec), (None, Some(0)));
    let as_json = |item: &UsageEvent| {
        json!({
            "event_id": item.event_id, "type": item.r#type, "started_at": item.started_at, "ended_at": item.ended_at,
            "duration_sec": item.duration_sec, "bytes_up": item.bytes_up, "bytes_down": item.bytes_down,
            "meta": serde_json::from_str::<Value>(&item.meta).expect("JSON"), "source_id": item.source_id,
        })
    };
    let same = json!({
        "user_id": page.user_id, "from": page.from, "to": page.to,
        "items": page.items.iter().map(as_json).collect::<Vec<_>>(),
        "next_cursor": Value::Null, "total_count": page.total_count,
    });
    assert_eq!(page.next_cursor, "");
    assert_eq!(page.total_count, 2, "only events of the last 30 days");
    assert_eq!(get_ok(servers.http, "/api/v1/users/123/detail").await, same);

    for granularity in ["DAY", "MONTH"] {
        let response = client.get_global_agg(totals_by(granularity)).await.expect("totals").into_inner();
        let rows = |rows: &[AggregateRow]| {
            let row = |row: &AggregateRow| {
                json!({
                    "date": row.date, "type": row.r#type, "count_events": row.count_events,
                    "sum_duration": row.sum_duration, "sum_bytes_up": row.sum_bytes_up,
                    "sum_bytes_down": row.sum_bytes_down,
                })
            };
            rows.iter().map(row).collect::<Vec<_>>()
        };
        let same = json!({"granularity": response.granularity, "from": response.from, "to": response.to, "tz": response.tz,
            "complete_through": response.complete_through, "data": rows(&response.data)});
        let target = format!("/api/v1/aggregates?granularity={granularity}");
        assert_eq!(get_ok(servers.http, &target).await, same);
        assert_eq!((response.data.len(), response.tz.as_str()), (2, "UTC"));

        let tz = "Asia/Tokyo".to_owned();
        let request = GetUserAggRequest {
            tz,
            granularity: granularity.to_owned(),
            user_id: "123".to_owned(),
            ..Default::default()
        };
        let response = client.get_user_agg(request).await.expect("totals").into_inner();
        let same = json!({"user_id": response.user_id, "granularity": response.granularity, "from": response.from,
            "to": response.to, "tz": "Asia/Tokyo", "complete_through": response.complete_through, "data": rows(&response.data)});
        let target = format!("/api/v1/users/123/aggregates?granularity={granularity}&tz=Asia/Tokyo");
        assert_eq!(get_ok(servers.http, &target).await, same);
        assert_eq!((response.data.len(), response.user_id.as_str()), (2, "123"));
    }
}

#[tokio::test]
async fn pages_follow_each_other() {
    let servers = Servers::start().await;
    let started_at = "2025-10-20T00:00:00Z";
    servers
        .add_events((0..5).map(|id| event(EventTemplate { id, started_at, ..EventTemplate::default() })).collect())
        .await;
    let mut client = client(&servers).await;
    let (mut sizes, mut cursor) = (Vec::new(), String::new());
    loop {
        let request = GetUserDetailRequest { limit: 2, cursor, ..detail_of("user-1") };
        let page = client.get_user_detail(request).await.expect("a page").into_inner();
        assert_eq!((page.total_count, page.to.as_str()), (5, NOW));
        sizes.push(page.items.len());
        if page.next_cursor.is_empty() {
            break;
        }
        cursor = page.next_cursor;
    }
    assert_eq!(sizes, [2, 2, 1]);

    // A cursor of one transport is valid on the other.
    let page = get_ok(servers.http, "/api/v1/users/user-1/detail?limit=3").await;
    let cursor = page["next_cursor"].as_str().expect("a cursor").to_owned();
    let request = GetUserDetailRequest { cursor: cursor.clone(), ..detail_of("user-1") };
    assert_eq!(client.get_user_detail(request).await.expect("a page").into_inner().items.len(), 2);
    let status = client
        .get_user_detail(GetUserDetailRequest { cursor, ..detail_of("user-2") })
        .await
        .expect_err("the cursor of another user");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_wrong_request_names_every_wrong_field() {
    let servers = Servers::start().await;
    let mut client = client(&servers).await;
    let long = "x".repeat(65);
    for (request, named) in [
        (detail_of(""), vec!["user_id: found nothing"]),
        (detail_of("\0"), vec!["user_id"]),
        (detail_of(&long), vec!["user_id"]),
        (GetUserDetailRequest { limit: -1, ..detail_of("u") }, vec!["limit: found -1"]),
        (GetUserDetailRequest { limit: 1_001, ..detail_of("u") }, vec!["limit: found 1001"]),
        (GetUserDetailRequest { cursor: "x".to_owned(), ..detail_of("u") }, vec!["cursor"]),
        (GetUserDetailRequest { r#type: "data".to_owned(), ..detail_of("u") }, vec!["type: found data"]),
        (
            GetUserDetailRequest { from: "ж".to_owned(), to: "2025-10-20".to_owned(), limit: 5_000, ..detail_of("") },
            vec!["user_id", "from: found ж", "to: found 2025-10-20", "limit"],
        ),
    ] {
        let status = client.get_user_detail(request).await.expect_err("wrong");
        assert_eq!(status.code(), Code::InvalidArgument);
        for name in named {
            assert!(status.message().contains(name), "{status}");
        }
    }
    for request in [
        totals_by(""),
        totals_by("Day"),
        GetGlobalAggRequest { from: "2025-10-2".to_owned(), ..totals_by("DAY") },
        GetGlobalAggRequest { from: "2025-11-01".to_owned(), ..totals_by("DAY") },
        GetGlobalAggRequest { r#type: "SMS".to_owned(), ..totals_by("MONTH") },
    ] {
        let status = client.get_global_agg(request).await.expect_err("wrong");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let status = client.get_user_detail(detail_of(&"x".repeat(100_000))).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[tokio::test]
async fn the_details_also_name_every_wrong_field() {
    let servers = Servers::start().await;
    // Values that are long enough for the longest possible error.
    let long = "😀".repeat(200);
    let request = GetUserDetailRequest {
        user_id: long.clone(),
        from: long.clone(),
        to: long.clone(),
        cursor: long.clone(),
        limit: -1,
        r#type: long,
    };
    let status = client(&servers).await.get_user_detail(request).await.expect_err("wrong");
    // Clients in C++, Python and other languages drop details of more than 8 KiB.
    let escaped: usize = status.message().bytes().map(|byte| if byte.is_ascii() { 1 } else { 3 }).sum();
    assert!(escaped + status.details().len() * 4 / 3 < 7 * 1_024);
    let details = status.get_details_bad_request().expect("details");
    let named: Vec<_> = details.field_violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(named, ["user_id", "from", "to", "cursor", "limit", "type"]);
    assert_eq!(details.field_violations[4].description, "found -1; accepted: an integer from 1 to 1000");
    for violation in details.field_violations {
        assert!(status.message().contains(&format!("{}: {}", violation.field, violation.description)), "{status}");
    }
}

#[tokio::test]
async fn a_page_fits_the_default_size_limit_of_clients() {
    let servers = Servers::start().await;
    // Pages of the maximum size: of the largest events, and of many small events.
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000_000));
    let large = |id| event(EventTemplate { id, meta: Some(&meta), user: "large", ..EventTemplate::default() });
    servers.add_events((0..10).map(large).collect()).await;
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(4_200));
    let source = "ж".repeat(128);
    let small = |id| event(EventTemplate { id, meta: Some(&meta), source: &source, ..EventTemplate::default() });
    servers.add_events((0..1_000).map(small).collect()).await;
    let mut client = client(&servers).await;
    for (user, least) in [("large", 4), ("user-1", 800)] {
        let request = GetUserDetailRequest { limit: 1_000, ..detail_of(user) };
        let page = client.get_user_detail(request).await.expect("the page fits").into_inner();
        assert!(page.items.len() >= least && !page.next_cursor.is_empty(), "{}", page.items.len());
    }
}

#[tokio::test]
async fn a_sum_beyond_64_bits_is_out_of_range() {
    let servers = Servers::start().await;
    let of = |id, event_type| event(EventTemplate { id, event_type, bytes_down: MAX, ..EventTemplate::default() });
    servers.add_events(vec![of(1, EventType::Data), of(2, EventType::Data), of(3, EventType::CallOut)]).await;
    let mut client = client(&servers).await;
    let status = client.get_global_agg(totals_by("DAY")).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().starts_with("sum_bytes_down of DATA on 2025-10-20"), "{status}");
    let request = GetGlobalAggRequest { r#type: "CALL_OUT".to_owned(), ..totals_by("DAY") };
    let response = client.get_global_agg(request).await.expect("the sum fits").into_inner();
    assert_eq!(response.data[0].sum_bytes_down, i64::MAX);
}

#[tokio::test]
async fn errors_of_the_store_reveal_no_internals() {
    let at_once = limits(|limits| limits.request_timeout = Duration::from_millis(50));
    for (failure, limits, code) in [
        (StoreFailure::Unavailable, ApiLimits::default(), Code::Unavailable),
        (StoreFailure::Internal, ApiLimits::default(), Code::Internal),
        (StoreFailure::NoAnswer, at_once, Code::Unavailable),
    ] {
        let servers = Servers::start_broken(failure, limits).await;
        let mut client = client(&servers).await;
        let detail: Status = client.get_user_detail(detail_of("u")).await.expect_err("broken");
        let totals: Status = client.get_global_agg(totals_by("DAY")).await.expect_err("broken");
        for status in [detail, totals] {
            assert_eq!(status.code(), code);
            for word in SECRET.split(' ').chain(["postgres"]) {
                assert!(!format!("{status:?}").contains(word), "{status:?}");
            }
        }
    }
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let servers = Servers::start().await;
    let channel = channel(&servers).await;
    let expected = ["grpc.health.v1.Health", "telecom.v1.UsageService"];

    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut responses =
        client.server_reflection_info(futures::stream::iter([request])).await.expect("reflection").into_inner();
    let response = responses.next().await.expect("a response").expect("no error").message_response;
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = response else {
        panic!("{response:?}")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "telecom.v1.UsageService.GetUserDetail".to_owned(),
        )),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut responses =
        client.server_reflection_info(futures::stream::iter([request])).await.expect("reflection").into_inner();
    let response = responses.next().await.expect("a response").expect("no error").message_response;
    let Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(files)) = response else {
        panic!("{response:?}")
    };
    assert_eq!(files.file_descriptor_proto.len(), 1);
}

#[tokio::test]
async fn health_reports_not_serving_at_the_shutdown() {
    let servers = Servers::start().await;
    let mut client = HealthClient::new(channel(&servers).await);
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let whole = client.check(of("")).await.expect("a response").into_inner().status();
    assert_eq!(whole, ServingStatus::Serving);
    assert_eq!(client.check(of("else")).await.expect_err("unknown").code(), Code::NotFound);

    let mut watch = client.watch(of(USAGE)).await.expect("a stream").into_inner();
    becomes(&mut watch, ServingStatus::Serving).await;
    servers.stop();
    becomes(&mut watch, ServingStatus::NotServing).await;
    assert_eq!(watch.message().await.expect("no error"), None);
    servers.stopped().await;
}

#[tokio::test]
async fn health_reports_whether_requests_can_be_answered() {
    let servers = Servers::start_failing_after(1, ApiLimits::default()).await;
    let mut client = HealthClient::new(channel(&servers).await);
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut watch = client.watch(of(USAGE)).await.expect("a stream").into_inner();
    becomes(&mut watch, ServingStatus::Serving).await;
    servers.allow_reads(0);
    becomes(&mut watch, ServingStatus::NotServing).await;
    // The server as a whole stays alive: an orchestrator must not restart it because its database is unavailable.
    let whole = client.check(of("")).await.expect("a response").into_inner().status();
    assert_eq!(whole, ServingStatus::Serving);
    servers.allow_reads(1);
    becomes(&mut watch, ServingStatus::Serving).await;
}

/// Waits until the watched service has `status`.
async fn becomes(watch: &mut Streaming<HealthCheckResponse>, status: ServingStatus) {
    let waiting = async { while watch.message().await.expect("no error").expect("a state").status() != status {} };
    tokio::time::timeout(SOON, waiting).await.expect("in time");
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let limits = limits(|limits| limits.idle_timeout = Duration::from_millis(50));
    let servers = Servers::start_with(limits).await;
    let mut silent = TcpStream::connect(servers.grpc).await.expect("connected");
    assert_eq!(silent.read(&mut [0]).await.expect("closed"), 0);

    let servers = Servers::start().await;
    let mut silent = TcpStream::connect(servers.grpc).await.expect("connected");
    // This later connection gets a response, so the silent connection is accepted by now.
    HealthClient::new(channel(&servers).await).check(HealthCheckRequest::default()).await.expect("a response");
    servers.stopped().await;
    assert_eq!(silent.read(&mut [0]).await.expect("closed"), 0);
}

#[tokio::test]
async fn the_wait_for_a_missing_message_ends() {
    let limits = limits(|limits| limits.idle_timeout = Duration::from_millis(50));
    let servers = Servers::start_with(limits).await;
    let mut client = tonic::client::Grpc::new(channel(&servers).await);
    client.ready().await.expect("connected");
    let codec = ProstCodec::<GetUserDetailRequest, GetUserDetailResponse>::default();
    let path = PathAndQuery::from_static("/telecom.v1.UsageService/GetUserDetail");
    let call = client.client_streaming(Request::new(futures::stream::pending()), path, codec);
    let status = tokio::time::timeout(SOON, call).await.expect("the wait ends").expect_err("the message is missing");
    assert!([Code::Cancelled, Code::DeadlineExceeded].contains(&status.code()), "{status}");
}

#[tokio::test]
async fn a_stop_closes_open_streams_after_the_timeout() {
    let limits = limits(|limits| limits.stop_timeout = Duration::from_millis(50));
    let servers = Servers::start_with(limits).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel(&servers).await);
    let requests = futures::stream::pending();
    let mut responses = client.server_reflection_info(requests).await.expect("reflection").into_inner();
    servers.stopped().await;
    responses.message().await.expect_err("the stream is aborted");
}

/// A gRPC frame: the flag, the length of the message, and the message.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    [&[flag], &length.to_be_bytes()[..], message].concat()
}

/// Sends `body` as a request with `encoding`, and returns the status of the call.
async fn status_of(servers: &Servers, path: &str, encoding: &str, body: Vec<u8>) -> Status {
    let request = axum::http::Request::post(format!("http://{}{path}", servers.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding)
        .body(tonic::body::Body::new(axum::body::Body::from(body)))
        .expect("a request");
    let response = channel(servers).await.oneshot(request).await.expect("a response");
    let (head, mut body) = response.into_parts();
    let mut trailers = head.headers;
    while let Some(frame) =
        std::future::poll_fn(|cx| axum::body::HttpBody::poll_frame(std::pin::Pin::new(&mut body), cx)).await
    {
        if let Ok(last) = frame.expect("no error").into_trailers() {
            trailers = last;
        }
    }
    Status::from_header_map(&trailers).expect("a status")
}

#[tokio::test]
async fn compressed_requests_are_accepted_within_the_size_limit() {
    const DETAIL: &str = "/telecom.v1.UsageService/GetUserDetail";
    const HEALTH: &str = "/grpc.health.v1.Health/Check";
    let servers = Servers::start().await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("compressed")
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).expect("compressed");
    let message = detail_of("u").encode_to_vec();
    let bomb = detail_of(&"x".repeat(50 << 20)).encode_to_vec();
    for (encoding, compress) in [("gzip", &gzip as &dyn Fn(&[u8]) -> Vec<u8>), ("zstd", &zstd)] {
        for (path, message) in [(DETAIL, &message[..]), (HEALTH, &[])] {
            let status = status_of(&servers, path, encoding, framed(1, &compress(message))).await;
            assert_eq!(status.code(), Code::Ok, "{path} {encoding}: {status}");
            let status = status_of(&servers, path, encoding, framed(0, message)).await;
            assert_eq!(status.code(), Code::Ok, "an uncompressed message is also accepted: {status}");
        }
        let status = status_of(&servers, DETAIL, encoding, framed(1, &compress(&bomb))).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{encoding}: {status}");
        let status = status_of(&servers, DETAIL, encoding, framed(1, b"nonsense")).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{encoding}: {status}");
    }
    let status = status_of(&servers, DETAIL, "snappy", framed(1, &message)).await;
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = client(&servers).await.send_compressed(encoding);
        client.get_user_detail(detail_of("u")).await.expect("a page");
    }
}

#[tokio::test]
async fn an_invalid_message_is_an_invalid_argument() {
    let servers = Servers::start().await;
    for path in [
        "/telecom.v1.UsageService/GetUserDetail",
        "/telecom.v1.UsageService/StreamUserDetail",
        "/telecom.v1.UsageService/GetGlobalAgg",
        "/telecom.v1.UsageService/GetUserAgg",
        "/grpc.health.v1.Health/Check",
    ] {
        // An unknown wire type, a length beyond the end, text that is not UTF-8.
        for message in [&[0x0f][..], &[0x0a, 0x7f, 0x61], &[0x0a, 0x01, 0xff], &[0xff; 12]] {
            let status = status_of(&servers, path, "identity", framed(0, message)).await;
            assert_eq!(status.code(), Code::InvalidArgument, "{path} {message:x?}: {status}");
        }
        let cut = framed(0, &[0; 12])[..10].to_vec();
        for body in [Vec::new(), cut] {
            let status = status_of(&servers, path, "identity", body).await;
            assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status}");
        }
    }
}

#[tokio::test]
async fn messages_do_not_mention_urls() {
    let servers = Servers::start().await;
    let wrong = "wrong".to_owned();
    let request = GetUserDetailRequest {
        from: wrong.clone(),
        to: wrong.clone(),
        cursor: wrong.clone(),
        limit: -1,
        r#type: wrong.clone(),
        user_id: "\0".to_owned(),
    };
    let detail = client(&servers).await.get_user_detail(request).await.expect_err("wrong");
    let request = GetGlobalAggRequest {
        from: wrong.clone(),
        to: wrong.clone(),
        r#type: wrong.clone(),
        tz: wrong,
        ..totals_by("")
    };
    let totals = client(&servers).await.get_global_agg(request).await.expect_err("wrong");
    for status in [detail, totals] {
        assert!(status.message().contains("from: found wrong"), "{status}");
        for word in ["URL", "%2B", "query", "path", "percent"] {
            assert!(!status.message().contains(word), "{status}");
        }
    }
}

#[tokio::test]
async fn reflection_includes_the_messages_in_error_details() {
    let servers = Servers::start().await;
    let channel = channel(&servers).await;
    let by_symbol = |symbol: &str| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::FileContainingSymbol(symbol.to_owned())),
    };
    let by_name = |name: &str| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::FileByFilename(name.to_owned())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut file = async |request| {
        let mut responses =
            client.server_reflection_info(futures::stream::iter([request])).await.expect("reflection").into_inner();
        let response = responses.next().await.expect("a response").expect("no error").message_response;
        let Some(v1::server_reflection_response::MessageResponse::FileDescriptorResponse(files)) = response else {
            panic!("{response:?}")
        };
        prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).expect("a file")
    };
    for symbol in ["google.rpc.BadRequest", "google.rpc.RetryInfo", "google.rpc.Status"] {
        let found = file(by_symbol(symbol)).await;
        assert_eq!(found.package(), "google.rpc");
        // A client resolves all dependencies before it shows a message.
        for dependency in &found.dependency {
            assert_eq!(file(by_name(dependency)).await.name(), dependency);
        }
    }

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "google.rpc.BadRequest".to_owned(),
        )),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut responses =
        client.server_reflection_info(futures::stream::iter([request])).await.expect("reflection").into_inner();
    let response = responses.next().await.expect("a response").expect("no error").message_response;
    assert!(
        matches!(response, Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))),
        "{response:?}"
    );
}

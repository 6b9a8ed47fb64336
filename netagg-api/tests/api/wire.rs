//! Malformed requests, as only an attacker or a broken client sends them.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use netagg_api::{ApiLimits, Protection, serve_router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::http_client::{read, send};
use crate::servers::{Servers, limits};

/// Sends `bytes` and returns the status of every response until the server closes the connection.
async fn statuses(servers: &Servers, bytes: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(servers.http).await.expect("connected");
    // The server may close the connection before it has read all bytes.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text);
    text.split("HTTP/1.1 ").skip(1).map(|response| response[..3].parse().expect("a status")).collect()
}

#[tokio::test]
async fn no_request_can_be_smuggled_in_another() {
    let servers = Servers::start().await;
    let get = "GET /api/v1/aggregates?granularity=DAY HTTP/1.1\r\nhost: test\r\n";
    let hidden = "GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n";
    for headers in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: +5\r\n",
        "content-length: -1\r\n",
        "content-length: 0x5\r\n",
        "transfer-encoding: identity, xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "x-folded: a\r\n b\r\n",
        "x-name : a\r\n",
        "x\0y: a\r\n",
        "x-value: a\0b\r\n",
        "x-value: a\rb\r\n",
    ] {
        let found = statuses(&servers, format!("{get}{headers}\r\n{hidden}").as_bytes()).await;
        assert_eq!(found, [400], "{headers:?}");
    }
    assert_eq!(statuses(&servers, format!("{get}host: other\r\nconnection: close\r\n\r\n").as_bytes()).await, [400]);
    // If a request gives the length of its body in two ways, the server reads the body by the stricter way, or not at all. It
    // never interprets the body as a request.
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for length in [0, 4, chunk.len()] {
        let both = format!("{get}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
        let found = statuses(&servers, both.as_bytes()).await;
        assert!(!found.contains(&404), "{length}: {found:?}");
        assert_eq!(found.len(), 1, "{length}: {found:?}");
    }
}

#[tokio::test]
async fn paths_are_not_normalised() {
    let servers = Servers::start().await;
    for (target, status) in [
        ("/api/v1/../v1/aggregates?granularity=DAY", 404),
        ("/api/v1/%2e%2e/v1/aggregates?granularity=DAY", 404),
        ("//api/v1/aggregates?granularity=DAY", 404),
        ("/api/v1/aggregates/?granularity=DAY", 404),
        ("/api/v1/aggregates%00?granularity=DAY", 404),
        ("/api/v1/aggregates%2f?granularity=DAY", 404),
        ("/API/v1/aggregates?granularity=DAY", 404),
        ("/api/v1/users/%00/detail", 400),
        ("/api/v1/users/%ff/detail", 400),
        ("/api/v1/users/%/detail", 400),
        ("/api/v1/users/../detail", 200),
        ("/api/v1/users/a%2fb/detail", 200),
        ("http://other.example/api/v1/aggregates?granularity=DAY", 200),
        ("http://other.example/etc/passwd", 404),
        ("*", 404),
        ("/a b", 400),
        ("no-slash", 404),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        assert_eq!(statuses(&servers, request.as_bytes()).await, [status], "{target}");
    }
}

#[tokio::test]
async fn a_request_is_addressed_to_one_valid_host() {
    let servers = Servers::start().await;
    let line = "GET /api/v1/aggregates?granularity=DAY";
    for (version, hosts, status) in [
        ("HTTP/1.1", "", 400),
        ("HTTP/1.1", "host:\r\n", 400),
        ("HTTP/1.1", "host: a b\r\n", 400),
        ("HTTP/1.1", "host: user@test\r\n", 400),
        ("HTTP/1.1", "host: test/path\r\n", 400),
        ("HTTP/1.1", "host: test:port\r\n", 400),
        ("HTTP/1.1", "host: test\r\nhost: test\r\n", 400),
        ("HTTP/1.1", "host: test:8000\r\n", 200),
        ("HTTP/1.1", "host: [::1]:8000\r\n", 200),
        ("HTTP/1.0", "", 200),
        ("HTTP/1.0", "host: test\r\n", 200),
        ("HTTP/1.0", "host: a b\r\n", 400),
    ] {
        let request = format!("{line} {version}\r\n{hosts}connection: close\r\n\r\n");
        let response = send(servers.http, &request).await;
        assert_eq!(response.status, status, "{request}");
        if status == 400 {
            response.problem();
        }
    }
    for path in ["/healthz", "/readyz", "/openapi.json", "/nothing"] {
        let response = send(servers.http, &format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(response.status, 400, "{path}");
    }
    let origins = ["https://app.example".parse().expect("a value")];
    let open = Servers::start_protected(Protection::default().with_cors_origins(origins)).await;
    let preflight = "OPTIONS / HTTP/1.1\r\norigin: https://app.example\r\naccess-control-request-method: GET\r\nconnection: close\r\n\r\n";
    assert_eq!(send(open.http, preflight).await.status, 400);

    // `serve_router` also checks the host, on a port of the application.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, stop) = (listener.local_addr().expect("an address"), CancellationToken::new());
    let app = Router::new().route("/", get(async || "ok"));
    let serving = tokio::spawn(serve_router(listener, app, ApiLimits::default(), stop.clone()));
    for (hosts, status) in [("", 400), ("host: a b\r\n", 400), ("host: test\r\n", 200)] {
        for (path, status) in [("/", status), ("/else", if status == 200 { 404 } else { 400 })] {
            let response = send(address, &format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n")).await;
            assert_eq!(response.status, status, "{path} {hosts}");
        }
    }
    stop.cancel();
    serving.await.expect("the server stops");
}

#[tokio::test]
async fn a_body_is_bounded_however_it_is_sent() {
    let servers = Servers::start().await;
    let get = "GET /api/v1/aggregates?granularity=DAY HTTP/1.1\r\nhost: test\r\nconnection: close\r\n";
    let chunked = |bytes: usize| {
        let chunk = "x".repeat(1_024);
        let mut text = format!("{get}transfer-encoding: chunked\r\n\r\n");
        for _ in 0..bytes / 1_024 {
            text.push_str(&format!("400\r\n{chunk}\r\n"));
        }
        text + "0\r\n\r\n"
    };
    let of_length = |bytes: usize| format!("{get}content-length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
    const LIMIT: usize = 64 * 1_024;
    for (request, status) in [
        (chunked(0), 200),
        (chunked(LIMIT), 200),
        (chunked(LIMIT + 1_024), 413),
        (chunked(512 * 1_024), 413),
        (of_length(LIMIT), 200),
        (of_length(LIMIT + 1), 413),
        (format!("{get}transfer-encoding: chunked\r\n\r\nno length\r\n"), 400),
    ] {
        assert_eq!(send(servers.http, &request).await.status, status, "{} bytes", request.len());
    }
    let expecting = format!("{get}content-length: 1000000\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(send(servers.http, &expecting).await.status, 413, "the server does not ask for the body");

    let limits = limits(|limits| limits.request_timeout = Duration::from_millis(50));
    let servers = Servers::start_with(limits).await;
    let mut slow = TcpStream::connect(servers.http).await.expect("connected");
    slow.write_all(format!("{get}content-length: 10\r\n\r\n").as_bytes()).await.expect("sent");
    assert_eq!(read(slow).await.status, 408, "the wait for a missing body ends");
}

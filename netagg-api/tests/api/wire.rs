//! Requests as only an attacker or a broken client spells them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::servers::Servers;

/// Everything that the server answers to `bytes` until it closes the connection, or the last of `bytes` asks it to.
async fn answers(servers: &Servers, bytes: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(servers.http).await.expect("connected");
    // It may close before it has read all.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text);
    text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().expect("a status")).collect()
}

#[tokio::test]
async fn no_request_hides_in_another() {
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
        let found = answers(&servers, format!("{get}{headers}\r\n{hidden}").as_bytes()).await;
        assert_eq!(found, [400], "{headers:?}");
    }
    assert_eq!(answers(&servers, format!("{get}host: other\r\nconnection: close\r\n\r\n").as_bytes()).await, [400]);
    // A body that says its length in two ways is read to its end by the stricter one, or not at all: what comes in it is
    // never a request.
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for length in [0, 4, chunk.len()] {
        let both = format!("{get}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
        let found = answers(&servers, both.as_bytes()).await;
        assert!(!found.contains(&404), "{length}: {found:?}");
        assert_eq!(found.len(), 1, "{length}: {found:?}");
    }
}

#[tokio::test]
async fn no_path_leads_elsewhere() {
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
        assert_eq!(answers(&servers, request.as_bytes()).await, [status], "{target}");
    }
}

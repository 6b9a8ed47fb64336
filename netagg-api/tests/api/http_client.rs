//! An HTTP client that sends exactly the given bytes. Other clients correct invalid requests.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
    bytes: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let (head, bytes) = (String::from_utf8(bytes[..end].to_vec()).expect("UTF-8"), bytes[end + 4..].to_vec());
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Self { status, head, body: String::from_utf8_lossy(&bytes).into_owned(), bytes }
    }

    /// The decoded body, with or without chunked encoding. `None` if the body is incomplete.
    pub(crate) fn whole(&self) -> Option<Vec<u8>> {
        if self.header("transfer-encoding") != Some("chunked") {
            return Some(self.bytes.clone());
        }
        let (mut whole, mut rest) = (Vec::new(), &*self.bytes);
        loop {
            let end = rest.windows(2).position(|window| window == b"\r\n")?;
            let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("a length"), 16).expect("hex");
            rest = &rest[end + 2..];
            if length == 0 {
                return Some(whole);
            }
            whole.extend_from_slice(rest.get(..length)?);
            rest = rest.get(length + 2..)?;
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find_map(|(header, value)| header.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem in the body. Panics if a required member is missing.
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], self.status);
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        problem
    }

    /// The names of the wrong parameters.
    pub(crate) fn wrong_parameters(&self) -> Vec<String> {
        assert_eq!(self.status, 400, "{self:?}");
        let problem = self.problem();
        let errors = problem["errors"].as_array().expect("errors");
        for error in errors {
            assert!(error["found"].is_string() && error["accepted"].is_string(), "{error}");
        }
        errors.iter().map(|error| error["parameter"].as_str().expect("a name").to_owned()).collect()
    }
}

pub(crate) async fn get(server: SocketAddr, target: &str) -> Response {
    request(server, "GET", target).await
}

/// Sends a GET request and returns the JSON of a 200 response.
pub(crate) async fn get_ok(server: SocketAddr, target: &str) -> Value {
    let response = get(server, target).await;
    assert_eq!(response.status, 200, "{target}: {response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()
}

pub(crate) async fn request(server: SocketAddr, method: &str, target: &str) -> Response {
    request_with(server, method, target, "").await
}

/// Sends a request like [`request`], with further header lines.
pub(crate) async fn request_with(server: SocketAddr, method: &str, target: &str, headers: &str) -> Response {
    send(server, &format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n")).await
}

/// Sends `text` and reads until the server closes.
pub(crate) async fn send(server: SocketAddr, text: &str) -> Response {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    stream.write_all(text.as_bytes()).await.expect("sent");
    read(stream).await
}

/// Reads until the server closes or resets the connection.
pub(crate) async fn read(mut stream: TcpStream) -> Response {
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    Response::parse(&response)
}

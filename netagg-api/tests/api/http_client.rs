//! A client that sends just what it is told: others mend what they are given.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Self { status, head: head.to_owned(), body: body.to_owned() }
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

    /// The problem, which has the members it needs.
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

pub(crate) async fn get(server: SocketAddr, target: &str) -> Answer {
    request(server, "GET", target).await
}

/// As [`get`], of what is answered.
pub(crate) async fn get_ok(server: SocketAddr, target: &str) -> Value {
    let answer = get(server, target).await;
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

pub(crate) async fn request(server: SocketAddr, method: &str, target: &str) -> Answer {
    send(server, &format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")).await
}

/// Sends `text` and reads until the server closes.
pub(crate) async fn send(server: SocketAddr, text: &str) -> Answer {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    Answer::parse(&answer)
}

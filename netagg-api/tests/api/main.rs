//! Tests of both servers over real sockets, with the in-memory adapters.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod access;
mod export;
mod grpc;
mod http;
mod http_client;
mod openapi;
mod servers;
mod tls;
mod tokens;
mod wire;

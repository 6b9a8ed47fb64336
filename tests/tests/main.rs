//! All integration tests in a single program, so that each server is started only once.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking, and its name is its documentation"
)]

mod e2e;
mod harness;
mod kafka;
mod postgres;
mod publishing;
mod redis;
mod support;

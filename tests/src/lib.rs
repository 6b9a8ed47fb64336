//! Real services for tests, and what the tests of this package share.
//!
//! A test asks for a service and gets a running one, looked for in this order, for each service apart:
//!
//! 1. an address in the environment: `NETAGG_TEST_POSTGRES_URL`, `NETAGG_TEST_REDIS_URL`, `NETAGG_TEST_KAFKA_BROKERS`;
//! 2. a Docker engine that answers: a container of the official image;
//! 3. the server's programs on this machine (`deploy/native/install` gets them), on a free port with throwaway data.
//!
//! Without any of these the test fails and says what to install. One line on stderr tells which way was taken.
//!
//! [`postgres::database`], [`redis::url`] and [`kafka::brokers`] are shared by all tests of a process: take a fresh
//! database, and fresh names of topics and groups from [`unique`]. A test of outages and crashes takes a server of its
//! own: [`postgres::Server`], [`redis::Server`] or [`redis::Cluster`] or [`redis::Sentinel`], [`kafka::Broker`]; these never
//! come from the environment.
//!
//! [`registry::Registry`] is none of these: each test that publishes crates has one, inside of its process.
//!
//! Whatever is started ends with the test process, whether that passes, panics or is killed.

#![allow(clippy::expect_used, clippy::panic, reason = "a test harness fails by panicking")]

mod docker;
mod keeper;
mod port;
mod server;
mod shared;
mod wait;

pub mod grpc;
pub mod kafka;
pub mod postgres;
pub mod programs;
pub mod proxy;
pub mod redis;
pub mod registry;

pub use wait::eventually;

/// A name that nobody else uses: `prefix`, a dash and 32 hexadecimal digits.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}

/// The code in README, compiled as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

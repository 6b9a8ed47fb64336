#![doc = include_str!("../README.md")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test harness fails by panicking")]

mod docker;
mod port;
mod server;
mod shared;
mod supervisor;
mod wait;

#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod redis;

pub use port::Port;
pub use wait::eventually;

/// A unique name: `prefix`, a dash and 32 hexadecimal digits.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}

/// The code in the README of the repository, compiled as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

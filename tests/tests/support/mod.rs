//! Helpers that the tests of this repository share, besides the servers of the harness.

pub(crate) mod browser;
pub(crate) mod grpc;
pub(crate) mod kafka;
pub(crate) mod otlp;
pub(crate) mod pages;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod registry;

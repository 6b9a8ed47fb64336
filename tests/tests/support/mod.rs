//! What tests of this repository share beside the services.

pub(crate) mod grpc;
pub(crate) mod kafka;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod registry;

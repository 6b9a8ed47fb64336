//! The gRPC interface, package `telecom.v1`: the messages and the client, generated from `proto/telecom/v1/usage.proto`.

#![allow(missing_docs, clippy::doc_markdown, reason = "generated code")]

tonic::include_proto!("telecom.v1");

/// The interface as an encoded `FileDescriptorSet`, as server reflection returns it.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("telecom.v1");

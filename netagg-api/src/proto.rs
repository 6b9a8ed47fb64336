//! The gRPC interface, package `telecom.v1`: messages and client, generated from
//! `proto/telecom/v1/usage.proto`.

#![allow(missing_docs, clippy::doc_markdown, reason = "generated code")]

tonic::include_proto!("telecom.v1");

/// The interface in the form that server reflection gives away: an encoded `FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("telecom.v1");

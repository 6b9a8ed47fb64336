#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Both servers share what one of them alone would not use.
#![cfg_attr(not(all(feature = "http", feature = "grpc")), allow(dead_code, unused_imports))]

mod answers;
mod connections;
#[cfg(feature = "grpc")]
mod grpc;
mod health;
#[cfg(feature = "http")]
mod http;
mod kept;
mod limits;
mod parameters;
mod protection;
#[cfg(feature = "grpc")]
pub mod proto;
mod room;
mod server;
#[cfg(feature = "tls")]
mod tls;
mod turns;

#[cfg(feature = "http")]
pub use http::{serve_router, serve_unready};
pub use limits::ApiLimits;
pub use protection::{ApiKeyFile, Protection};
#[cfg(feature = "jwt")]
pub use protection::{InvalidKeySetUrl, KeySet, KeySetFile, KeySetUrl, TokenIssuer};
pub use server::Server;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError, TlsFiles};

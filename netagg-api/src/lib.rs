#![doc = include_str!("../README.md")]

mod answers;
mod connections;
mod grpc;
mod health;
mod http;
mod kept;
mod limits;
mod parameters;
mod protection;
pub mod proto;
mod room;
mod tls;
mod turns;

pub use grpc::serve_grpc;
pub use http::{health_router, router, serve_http, serve_router, serve_unready};
pub use limits::ApiLimits;
pub use protection::{ApiKeyFile, InvalidKeySetUrl, KeySet, KeySetFile, KeySetUrl, Protection, TokenIssuer};
pub use tls::{Tls, TlsError, TlsFiles};

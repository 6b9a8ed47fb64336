#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Some shared items are unused if only one of the two servers is built.
#![cfg_attr(not(all(feature = "http", feature = "grpc")), allow(dead_code, unused_imports))]

pub mod auth;
mod client;
mod connections;
#[cfg(feature = "grpc")]
mod grpc;
mod handlers;
mod health;
#[cfg(feature = "http")]
mod http;
mod lifo_semaphore;
mod metrics;
mod parameters;
#[cfg(feature = "grpc")]
pub mod proto;
mod response_budget;
mod response_cache;
mod server;
mod server_limits;
#[cfg(feature = "testkit")]
pub mod testkit;
#[cfg(feature = "tls")]
mod tls;
mod trace;

#[cfg(feature = "http")]
#[doc(no_inline)]
pub use axum;
#[cfg(feature = "grpc")]
#[doc(no_inline)]
pub use tonic;

pub use auth::Protection;
#[cfg(feature = "prometheus")]
pub use http::OpsMetrics;
#[cfg(feature = "overview-page")]
pub use http::overview_page;
#[cfg(feature = "http")]
pub use http::{ops_router, serve_router, serve_unready};
#[cfg(feature = "profiles")]
pub use http::{profiles_router, sample_heap};
pub use metrics::{REQUEST_SECONDS_BUCKETS, describe_metrics, register_metrics};
pub use server::Server;
pub use server_limits::ApiLimits;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError, TlsFiles};

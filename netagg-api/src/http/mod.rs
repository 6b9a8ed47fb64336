//! HTTP and JSON over the usage service.

mod accept;
mod body;
mod browsers;
mod conditional;
mod export;
mod health;
mod host;
mod layers;
mod openapi;
mod ops;
#[cfg(feature = "docs-page")]
mod page;
mod problem;
mod query;
mod routes;
mod serve;
mod state;
mod usage;

pub use ops::ops_router;
pub use serve::{serve_router, serve_unready};

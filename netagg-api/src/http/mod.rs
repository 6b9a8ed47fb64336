//! The HTTP API over the usage service.

mod accept;
mod body;
mod cors;
#[cfg(feature = "docs-page")]
mod docs_page;
mod etag;
mod export;
mod health;
mod host;
mod layers;
mod openapi;
mod ops;
#[cfg(feature = "prometheus")]
mod ops_metrics;
#[cfg(feature = "overview-page")]
mod overview;
mod problem;
#[cfg(feature = "profiles")]
mod profiles;
mod query;
mod routes;
mod security_headers;
mod serve;
mod state;
mod trace;
mod usage;

pub use ops::ops_router;
#[cfg(feature = "prometheus")]
pub use ops_metrics::OpsMetrics;
#[cfg(feature = "overview-page")]
pub use overview::overview_page;
#[cfg(feature = "profiles")]
pub use profiles::{profiles_router, sample_heap};
pub use serve::{serve_router, serve_unready};

//! Connections to the server, and the values that go over them. Every other module builds on this one.

mod call;
pub(crate) mod config;
pub(crate) mod copy_format;
pub(crate) mod error;
pub(crate) mod locks;
mod passed_check;
mod pool;
pub(crate) mod rows;
mod session;
mod traced;

pub(crate) use self::error::PgError;
pub use self::pool::{PoolUse, Postgres};
pub(crate) use self::session::Session;
pub(crate) use self::traced::Traced;

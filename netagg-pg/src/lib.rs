#![doc = include_str!("../README.md")]

mod aggregate_store;
mod config;
mod copy;
mod error;
mod event_store;
mod ledger;
mod migrations;
mod partitions;
mod postgres;
mod progress;
mod settings;

pub use aggregate_store::PgAggregateStore;
pub use config::{InvalidAddress, PgAddress, PgConfig};
pub use event_store::PgEventStore;
pub use migrations::{Migrations, SchemaVersion};
pub use partitions::{Partition, Partitions};
pub use postgres::Postgres;
pub use settings::{EventLimitsError, Settings};
pub use sqlx::postgres::PgSslMode as SslMode;

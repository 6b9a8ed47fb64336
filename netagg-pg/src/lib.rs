#![doc = include_str!("../README.md")]

mod accounts;
mod aggregate_store;
#[cfg(feature = "api-keys")]
mod api_keys;
mod audit;
mod books;
mod completeness;
mod completeness_port;
mod config;
mod copy;
mod distribution;
mod error;
mod event_store;
mod ledger;
mod maintenance;
mod metrics;
mod migrations;
mod partitions;
mod postgres;
mod progress;
mod repair;
mod retention;
mod set_aside;
mod settings;
mod startup;
mod totals;

pub use accounts::Account;
pub use aggregate_store::PgAggregateStore;
#[cfg(feature = "api-keys")]
pub use api_keys::PgApiKeys;
pub use audit::{
    Audit, AuditOptions, AuditReport, ConflictingDuplicates, DroppedCopy, LedgerDifference, LedgerFault,
    TotalsDifference, Undecided,
};
pub use books::{Column, OnProgress, Progress};
pub use config::{InvalidAddress, PgAddress, PgConfig};
pub use event_store::PgEventStore;
pub use maintenance::{MaintenanceReport, PartitionMaintenance, PartitionPlan};
pub use metrics::describe_metrics;
pub use migrations::{Migrations, SchemaVersion};
pub use partitions::{Ahead, Partition, Partitions};
pub use postgres::{PoolUse, Postgres};
pub use repair::{Change, Left, PgTotalsRepair, Repair, Repairs};
pub use retention::{DropError, Dropped, Retention};
pub use set_aside::{SetAside, WaitingMonth};
pub use settings::{EventLimitsError, Settings};
pub use sqlx::postgres::PgSslMode as SslMode;

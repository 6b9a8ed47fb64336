#![doc = include_str!("../README.md")]

mod client;
mod metrics;
mod mode_switch;
mod partition_maintenance;
mod reconcile;
mod retention;
mod schema;
mod stores;

pub use client::config::{InvalidAddress, PgAddress, PgConfig};
pub use client::{PoolUse, Postgres};
pub use metrics::describe_metrics;
pub use mode_switch::{ModeSwitch, SwitchError, SwitchReport};
pub use partition_maintenance::{MaintenanceReport, PartitionMaintenance, PartitionPlan};
pub use reconcile::audit::{
    Audit, AuditOptions, AuditReport, AuditVerdict, ConflictingDuplicates, DroppedCopy, LedgerDifference, LedgerFault,
    TotalsDifference, Undecided,
};
pub use reconcile::repair::{
    Change, PgTotalsRepair, Rebuild, RebuildOptions, RebuildProgress, RebuildReport, Repair, Repairs, Skipped,
};
pub use reconcile::{Column, OffsetReport, OnProgress, ReadProgress};
pub use retention::{DropError, Dropped, Retention};
pub use schema::{
    Ahead, EventLimitsError, Migrations, ModeError, MonthPartition, Partitions, RecordedMode, SchemaVersion, Settings,
};
#[doc(no_inline)]
pub use sqlx;
pub use sqlx::postgres::PgSslMode as SslMode;
#[cfg(feature = "api-keys")]
pub use stores::PgApiKeys;
pub use stores::{PgAggregateStore, PgCombinedStore, PgEventStore, SetAside, StoreHook, WaitingMonth};

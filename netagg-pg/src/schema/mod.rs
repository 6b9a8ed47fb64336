//! The tables: their versions, and the rules that every program follows when it uses them.

mod agreement;
mod distribution;
mod migrations;
pub(crate) mod mode;
pub(crate) mod month_fence;
pub(crate) mod partitions;
pub(crate) mod settings;
pub(crate) mod write_transaction;

pub use self::migrations::{Migrations, SchemaVersion};
pub use self::mode::{ModeError, RecordedMode};
pub use self::partitions::{Ahead, MonthPartition, Partitions};
pub use self::settings::{EventLimitsError, Settings};

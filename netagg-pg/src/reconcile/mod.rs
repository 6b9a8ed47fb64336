//! The audit checks whether the totals are the sums over the stored events, and a repair corrects them.

pub(crate) mod audit;
mod connection;
mod day_snapshot;
mod days;
mod identity_lookup;
mod offsets;
mod read_progress;
pub(crate) mod repair;
mod snapshot;
mod sums;
mod time_range;

pub use self::offsets::OffsetReport;
pub use self::read_progress::{OnProgress, ReadProgress};
pub use self::sums::Column;

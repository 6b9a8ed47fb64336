//! Repairs: they recompute the totals of days from the stored events, while both services run.
//!
//! A repair computes the wanted totals of a day in one snapshot, as the audit does: the sums over the stored events that are
//! counted, plus the events that are counted and not stored yet, once they are stored. A short transaction then adds the
//! difference between the wanted totals and the totals of the snapshot. Totals that writers add after the snapshot are exact
//! by themselves and stay. So no writer waits, and the day is exact whichever service is ahead.
//!
//! Only one repair of a day may be between its snapshot and its end. Otherwise two repairs would add the same difference twice.
//! The session that ends the repair also holds its lock. A repair that loses its connection has lost its lock and can change
//! nothing.

mod change;
mod day_locks;
mod rebuild;
mod recount;
mod repairs;
mod run;
mod totals_repair;
mod write;

pub use self::change::{Change, Skipped};
pub use self::rebuild::{Rebuild, RebuildOptions, RebuildProgress, RebuildReport};
pub use self::repairs::Repairs;
pub use self::run::Repair;
pub use self::totals_repair::PgTotalsRepair;

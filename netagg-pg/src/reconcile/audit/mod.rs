//! The audit: it checks whether the totals are the sums over the events, while both services run.
//!
//! An audit compares one snapshot. Where both ledgers have the same identities of a day, the totals must be the sums over
//! its stored events. For other days, the totals must be the sums over the counted events, plus the events that are counted
//! and not stored yet. The audit waits outside of the snapshot until the ingestor has stored these events, and sums them
//! up. It also waits for events that are stored and not counted yet: otherwise an event that the aggregator skipped would
//! look like an event that it has not reached. So the result is exact whichever service is ahead, and no service waits for
//! the audit.
//!
//! A day that waits for its repair after a conflict is compared again until it is repaired.

mod audit_snapshot;
mod broker;
mod catch_up;
mod compare;
mod conflicts;
mod findings_json;
mod options;
mod report;
mod run;

pub use self::conflicts::{ConflictingDuplicates, DroppedCopy};
pub use self::options::AuditOptions;
pub use self::report::{AuditReport, AuditVerdict, LedgerDifference, LedgerFault, TotalsDifference, Undecided};
pub use self::run::Audit;

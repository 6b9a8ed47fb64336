//! The places where the death of a process could cost exactness if anything were in the wrong order, by name.
//!
//! With the feature `crash-points`, which is for tests, the environment's `FAILPOINTS` (as the crate `fail` reads it)
//! makes a program abort at one of them: `FAILPOINTS='batch_done=2*off->return'` the third time it passes there. Without
//! the feature nothing of this is compiled in.

macro_rules! crash_points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal,)+) => {
        /// A place where a process may die; what happens then is told in `docs/reliability.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum CrashPoint {
            $($(#[doc = $doc])+ $point,)+
        }

        impl CrashPoint {
            /// Every point.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// Its name in `FAILPOINTS`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

crash_points! {
    /// Records are read, none of them is in a batch.
    Fetched = "fetched",
    /// Partitions were assigned, none of their records is read.
    Assigned = "assigned",
    /// Partitions were revoked, what was gathered of them is not yet forgotten.
    Revoked = "revoked",
    /// Dead letters are handed to the client, no broker has acknowledged them.
    DeadLettersInFlight = "dead_letters_in_flight",
    /// A batch's dead letters are durable, none of its events is.
    DeadLettersSent = "dead_letters_sent",
    /// A partition of `events_raw` is made and attached, and not committed.
    PartitionAttached = "partition_attached",
    /// A partition of `events_raw` is committed, none of its events is stored.
    PartitionMade = "partition_made",
    /// The ledger refused a batch for a known key, and the attempt is rolled back.
    LedgerRefused = "ledger_refused",
    /// A batch's new keys are in the ledger, nothing else of it is written.
    LedgerEntered = "ledger_entered",
    /// The days of a batch's conflicts are marked for repair.
    ConflictsMarked = "conflicts_marked",
    /// A batch's events are in `events_raw`.
    EventsCopied = "events_copied",
    /// A batch's totals are added to `agg_day`.
    TotalsAdded = "totals_added",
    /// A batch's progress is noted; only the commit is missing.
    ProgressNoted = "progress_noted",
    /// The transaction of a batch is committed, and nobody in this process knows yet.
    Committed = "committed",
    /// A batch is done, its offsets are not committed.
    BatchDone = "batch_done",
    /// Offsets are handed over to be committed.
    OffsetsCommitted = "offsets_committed",
    /// A day's correction is computed, and not applied.
    RepairComputed = "repair_computed",
    /// A day's correction is applied, and not committed.
    RepairApplied = "repair_applied",
    /// Months are recorded as dropped, and still there.
    MonthsRefused = "months_refused",
    /// A month's partition is detached, and still there as a table.
    MonthDetached = "month_detached",
    /// A month's table is gone, its identities are not.
    MonthTableDropped = "month_table_dropped",
    /// A switch of the mode is recorded, and nothing else of it is done.
    SwitchRecorded = "switch_recorded",
    /// The aggregator's group is deleted or has new offsets; the tables are as before.
    GroupMoved = "group_moved",
    /// The tables have the new mode, and nothing is committed.
    TablesSwitched = "tables_switched",
    /// A service was asked to stop, what it has in flight is not finished.
    Stopping = "stopping",
    /// A stopping service has finished everything, and not committed the last offsets.
    Drained = "drained",
}

/// Dies here if a test says so.
#[inline]
pub fn pass(point: CrashPoint) {
    #[cfg(feature = "crash-points")]
    fail::fail_point!(point.as_str(), |_| std::process::abort());
    #[cfg(not(feature = "crash-points"))]
    let _ = point;
}

/// Panics here if a test says so, as a fault in the task `name` would: `FAILPOINTS='name=panic'`.
#[inline]
pub fn in_task(name: &str) {
    #[cfg(feature = "crash-points")]
    fail::fail_point!(name);
    #[cfg(not(feature = "crash-points"))]
    let _ = name;
}

/// Reads which points are to be deadly, from the environment; to be called once, first.
#[cfg(feature = "crash-points")]
pub fn set_up() {
    // Kept for the life of the process.
    std::mem::forget(fail::FailScenario::setup());
}

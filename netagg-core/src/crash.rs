//! Crash points: named places in the code where a crash would make totals wrong if the steps around it had a wrong order.
//!
//! The feature `crash-points` is for tests. With it, the environment variable `FAILPOINTS` makes a program abort at a crash
//! point; the crate `fail` defines its syntax. For example, `FAILPOINTS='batch_done=2*off->return'` aborts the program when it
//! passes this point for the third time. Without the feature, no crash point is compiled in.

macro_rules! crash_points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal,)+) => {
        /// A place where tests abort a process. `docs/reliability.md` says what happens after a crash at each place.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum CrashPoint {
            $($(#[doc = $doc])+ $point,)+
        }

        impl CrashPoint {
            /// Every point.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// The name of the point in `FAILPOINTS`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

crash_points! {
    /// Records are read. None of them is in a batch.
    Fetched = "fetched",
    /// Partitions were assigned. None of their records is read.
    Assigned = "assigned",
    /// Partitions were revoked. Their records are still in the pending batch.
    Revoked = "revoked",
    /// Dead letters are passed to the client. No broker has acknowledged them.
    DeadLettersInFlight = "dead_letters_in_flight",
    /// The dead letters of a batch are durable. None of its events is.
    DeadLettersSent = "dead_letters_sent",
    /// A month partition of `events_raw` is created and attached, but not committed.
    PartitionAttached = "partition_attached",
    /// A month partition of `events_raw` is committed. None of its events is stored.
    PartitionMade = "partition_made",
    /// The ledger rejected a batch because of a known key, and the transaction is rolled back.
    LedgerRefused = "ledger_refused",
    /// The new keys of a batch are in the ledger. No other part of the batch is written.
    LedgerEntered = "ledger_entered",
    /// The days of the conflicts of a batch are marked as dirty.
    ConflictsMarked = "conflicts_marked",
    /// The events of a batch are in `events_raw`.
    EventsCopied = "events_copied",
    /// The totals of a batch are added to `agg_day`.
    TotalsAdded = "totals_added",
    /// The progress of a batch is written. Only the commit of the transaction is missing.
    ProgressNoted = "progress_noted",
    /// The transaction of a batch is committed, but the process has not handled the result.
    Committed = "committed",
    /// A batch is done. Its offsets are not committed.
    BatchDone = "batch_done",
    /// Offsets are passed to the source for a commit.
    OffsetsCommitted = "offsets_committed",
    /// The correction of a day is computed, but not applied.
    RepairComputed = "repair_computed",
    /// The correction of a day is applied, but not committed.
    RepairApplied = "repair_applied",
    /// Months are recorded as dropped, but their partitions still exist.
    MonthsRefused = "months_refused",
    /// The partition of a month is detached, but still exists as a table.
    MonthDetached = "month_detached",
    /// The table of a month is deleted. The identities of the month still exist.
    MonthTableDropped = "month_table_dropped",
    /// A switch of the mode is recorded. No other step of the switch is done.
    SwitchRecorded = "switch_recorded",
    /// The group of the aggregator is deleted or has new offsets. The tables are unchanged.
    GroupMoved = "group_moved",
    /// The tables have the new mode, but this is not committed.
    TablesSwitched = "tables_switched",
    /// A service was asked to stop. Its batches in flight are not finished.
    Stopping = "stopping",
    /// A stopping service has finished its batches, but not committed the last offsets.
    Drained = "drained",
}

/// Aborts the process here if `FAILPOINTS` enables `point`.
#[inline]
pub fn pass(point: CrashPoint) {
    #[cfg(feature = "crash-points")]
    fail::fail_point!(point.as_str(), |_| std::process::abort());
    #[cfg(not(feature = "crash-points"))]
    let _ = point;
}

/// Panics here if `FAILPOINTS='name=panic'` is set, like a bug in the task `name` would.
#[inline]
pub fn in_task(name: &str) {
    #[cfg(feature = "crash-points")]
    fail::fail_point!(name);
    #[cfg(not(feature = "crash-points"))]
    let _ = name;
}

/// Reads the enabled points from the environment. Call this once, at the start of the program.
#[cfg(feature = "crash-points")]
pub fn set_up() {
    // The scenario stays active until the process ends.
    std::mem::forget(fail::FailScenario::setup());
}

//! What an audit has found, from the database and the broker together.

use std::ops::Range;

use netagg_core::Day;
use netagg_pg::{AuditReport, OffsetReport, WaitingMonth};

use super::broker::Broker;

#[derive(Debug)]
pub(super) struct Findings {
    pub(super) from: Option<Day>,
    pub(super) to: Option<Day>,
    pub(super) report: AuditReport,
    /// Events that are accepted and not in events_raw, as their month has no partition.
    pub(super) set_aside: Vec<WaitingMonth>,
    pub(super) partitions: Vec<Partition>,
    /// Why the broker was not asked, if it was not.
    pub(super) broker_silence: Option<String>,
}

/// The account of a partition, with what the broker knows of it.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) account: OffsetReport,
    pub(super) committed: Option<i64>,
    pub(super) lag: Option<i64>,
    /// Offsets that the group has committed and the service has not done with: lost.
    pub(super) lost: Vec<Range<i64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Equal,
    Different,
    CouldNotTell,
}

impl Findings {
    pub(super) fn new(
        from: Option<Day>,
        to: Option<Day>,
        mut report: AuditReport,
        set_aside: Vec<WaitingMonth>,
        broker: Broker,
    ) -> Self {
        let partition = |account: OffsetReport| {
            let known = broker.lag(&account.service, &account.partition);
            let committed = known.and_then(|known| known.committed);
            let lost = committed.map(|committed| account.lost_before(committed)).unwrap_or_default();
            Partition { lag: known.map(|known| known.lag), committed, lost, account }
        };
        let partitions = std::mem::take(&mut report.offsets).into_iter().map(partition).collect();
        Self { from, to, report, set_aside, partitions, broker_silence: broker.silence().map(str::to_owned) }
    }

    pub(super) fn verdict(&self) -> Verdict {
        let report = &self.report;
        let is_lossy = |partition: &Partition| partition.account.unaccounted() != 0 || !partition.lost.is_empty();
        if !report.totals.is_empty() || !report.ledgers.is_empty() || self.partitions.iter().any(is_lossy) {
            Verdict::Different
        } else if report.undecided.is_empty() {
            Verdict::Equal
        } else {
            Verdict::CouldNotTell
        }
    }
}

//! The findings of an audit.

use netagg_core::{Day, EventType, Granularity, Month, ProcessingMode};
use serde::{Serialize, Serializer};

use super::conflicts::ConflictingDuplicates;
use crate::reconcile::offsets::OffsetReport;
use crate::reconcile::sums::Column;
use crate::stores::WaitingMonth;

/// The findings of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// The mode of the database. In the combined mode, both ledger names stand for `event_identity`.
    pub mode: ProcessingMode,
    /// The newest dropped month. The audit leaves out this month and all months before it.
    pub dropped_through: Option<Month>,
    /// How many days with events or totals were compared.
    pub days: u64,
    /// How many events these days have.
    pub events: u64,
    /// How many of these events the aggregator has not counted yet; no total contains them.
    #[serde(rename = "uncounted_events")]
    pub uncounted: u64,
    /// Accepted events that wait for a partition of their month. They are no differences by themselves.
    pub set_aside: Vec<WaitingMonth>,
    /// Totals that are not the sums over the events, in order.
    pub totals: Vec<TotalsDifference>,
    /// Ledgers that disagree with the events or totals, in order.
    pub ledgers: Vec<LedgerDifference>,
    /// Days that could not be compared, in order.
    pub undecided: Vec<Undecided>,
    /// Events that came again with other content. They are no differences: the totals follow the stored copy.
    pub conflicts: ConflictingDuplicates,
    /// The processed offsets of each service, and the outcomes of their records.
    #[serde(rename = "partitions")]
    pub offsets: Vec<OffsetReport>,
    /// Why the processed offsets are not compared with the committed offsets of the consumer groups; `None` if they are
    /// compared.
    #[serde(rename = "broker", serialize_with = "broker_comparison")]
    pub broker_problem: Option<String>,
}

#[derive(Serialize)]
struct Broker<'a> {
    compared: bool,
    reason: Option<&'a str>,
}

/// Serializes whether the processed offsets are compared with the broker, and the `problem` if they are not.
fn broker_comparison<S: Serializer>(problem: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    Broker { compared: problem.is_none(), reason: problem.as_deref() }.serialize(serializer)
}

/// Whether the totals are the sums over the events, and every record is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditVerdict {
    /// All totals are the sums, and no record is lost.
    Equal,
    /// A total or a ledger differs, or a record is lost or counted twice.
    Different,
    /// No difference was found, and some days could not be compared.
    #[serde(rename = "could_not_tell")]
    Undecided,
}

impl AuditReport {
    /// The verdict over all findings.
    pub fn verdict(&self) -> AuditVerdict {
        let is_lossy = |offsets: &OffsetReport| offsets.unaccounted() != 0 || !offsets.lost().is_empty();
        if !self.totals.is_empty() || !self.ledgers.is_empty() || self.offsets.iter().any(is_lossy) {
            AuditVerdict::Different
        } else if self.undecided.is_empty() {
            AuditVerdict::Equal
        } else {
            AuditVerdict::Undecided
        }
    }

    /// Whether all totals are the sums over the events, and no record is lost.
    pub fn is_clean(&self) -> bool {
        self.verdict() == AuditVerdict::Equal
    }

    /// The first and the last day whose totals a rebuild would correct; `None` if there is no such day. A rebuild does not
    /// bring back lost records.
    pub fn days_to_rebuild(&self) -> Option<(Day, Day)> {
        let totals = self.totals.iter().filter(|difference| difference.granularity == Granularity::Day);
        let is_of_totals = |fault| !matches!(fault, LedgerFault::CountMismatch { .. });
        let ledgers = self.ledgers.iter().filter(|difference| is_of_totals(difference.fault));
        let days: Vec<Day> =
            totals.map(|difference| difference.date).chain(ledgers.map(|difference| difference.day)).collect();
        Some((*days.iter().min()?, *days.iter().max()?))
    }
}

/// A total that is not the sum over the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotalsDifference {
    /// Day for a total in `agg_day`, month for a total in `agg_month`.
    pub granularity: Granularity,
    /// The day, or the first day of the month.
    pub date: Day,
    /// The type of the events.
    pub event_type: EventType,
    /// The column that differs.
    pub column: Column,
    /// The total; `None` if there is no row.
    pub in_totals: Option<i128>,
    /// The sum over the events; `None` if there are no events.
    pub by_events: Option<i128>,
    /// Whether a repair will correct this total, because its day has a conflict or is dirty.
    pub awaits_repair: bool,
}

impl TotalsDifference {
    /// Days before months, each in their order.
    pub(super) fn order(&self) -> (bool, Day, EventType, Column) {
        (self.granularity == Granularity::Month, self.date, self.event_type, self.column)
    }
}

/// A ledger that disagrees with the events or totals of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerDifference {
    /// The day.
    pub day: Day,
    /// The fault.
    #[serde(flatten)]
    pub fault: LedgerFault,
}

/// A fault of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum LedgerFault {
    /// `event_identity` has another number of identities than `events_raw` has events.
    #[serde(rename = "event_identity_differs")]
    CountMismatch {
        /// How many events `events_raw` has.
        events: u64,
        /// How many identities `event_identity` has.
        identities: u64,
    },
    /// Stored events that `agg_identity` does not have, although the aggregator has processed their offsets.
    NeverCounted {
        /// How many events.
        events: u64,
    },
    /// Events that only `agg_identity` has, although the ingestor has processed their offsets.
    NeverStored {
        /// How many events.
        events: u64,
    },
}

/// A day that could not be compared, since its totals contain events that the ingestor has not stored yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Undecided {
    /// The day.
    pub day: Day,
    /// How many events the ingestor has not stored yet.
    #[serde(rename = "events_behind")]
    pub events: u64,
}

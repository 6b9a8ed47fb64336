//! Findings for programs.

use std::ops::Range;

use netagg_core::Timestamp;
use netagg_pg::{
    AuditOptions, AuditReport, AuditVerdict, DroppedCopy, LedgerDifference, LedgerFault, OffsetReport,
    TotalsDifference, Undecided,
};
use serde::Serialize;

use super::report::{date_of, table_of};
use crate::Failure;
use crate::output::outln;

/// The document. Its names are part of the command's interface: docs/audit.md.
#[derive(Serialize)]
struct Document<'a> {
    verdict: &'static str,
    from: Option<String>,
    to: Option<String>,
    dropped_through: Option<String>,
    days: u64,
    events: u64,
    uncounted_events: u64,
    set_aside: Vec<SetAside>,
    totals: Vec<Totals>,
    ledgers: Vec<Ledger>,
    undecided: Vec<NotDecided>,
    conflicts: Conflicts<'a>,
    partitions: Vec<OfPartition<'a>>,
    broker: BrokerSilence<'a>,
}

#[derive(Serialize)]
struct SetAside {
    month: String,
    events: u64,
}

#[derive(Serialize)]
struct Totals {
    table: &'static str,
    date: String,
    r#type: &'static str,
    column: &'static str,
    in_totals: Option<i128>,
    by_events: Option<i128>,
    awaits_repair: bool,
}

#[derive(Serialize)]
struct Ledger {
    day: String,
    fault: &'static str,
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    identities: Option<u64>,
}

#[derive(Serialize)]
struct NotDecided {
    day: String,
    events_behind: u64,
}

#[derive(Serialize)]
struct Conflicts<'a> {
    count: u64,
    first: Vec<Conflict<'a>>,
}

#[derive(Serialize)]
struct Conflict<'a> {
    source_id: &'a str,
    event_id: String,
    kept: Copy,
    dropped: Copy,
    topic: Option<&'a str>,
    partition: Option<i32>,
    offset: Option<i64>,
    noticed_at: Timestamp,
}

#[derive(Serialize)]
struct Copy {
    content: String,
    day: String,
}

#[derive(Serialize)]
struct OfPartition<'a> {
    service: &'a str,
    topic: &'a str,
    partition: i32,
    first_offset: i64,
    next_offset: i64,
    done: i64,
    in_flight: i64,
    in_flight_offsets: Vec<Offsets>,
    accepted: i64,
    duplicates: i64,
    conflicts: i64,
    invalid: i64,
    vacant: i64,
    redelivered: i64,
    uncounted: i64,
    unaccounted: i64,
    committed: Option<i64>,
    lag: Option<i64>,
    lost_offsets: Vec<Offsets>,
}

/// Both inclusive.
#[derive(Serialize)]
struct Offsets {
    first: i64,
    last: i64,
}

#[derive(Serialize)]
struct BrokerSilence<'a> {
    compared: bool,
    reason: Option<&'a str>,
}

pub(super) fn print(options: &AuditOptions, report: &AuditReport) -> Result<(), Failure> {
    let document = Document {
        verdict: match report.verdict() {
            AuditVerdict::Equal => "equal",
            AuditVerdict::Different => "different",
            AuditVerdict::Undecided => "could_not_tell",
        },
        from: options.from.map(|day| day.to_string()),
        to: options.to.map(|day| day.to_string()),
        dropped_through: report.dropped_through.map(|month| month.to_string()),
        days: report.days,
        events: report.events,
        uncounted_events: report.uncounted,
        set_aside: report
            .set_aside
            .iter()
            .map(|waiting| SetAside { month: waiting.month.to_string(), events: waiting.events })
            .collect(),
        totals: report.totals.iter().map(Totals::from).collect(),
        ledgers: report.ledgers.iter().map(Ledger::from).collect(),
        undecided: report.undecided.iter().map(NotDecided::from).collect(),
        conflicts: Conflicts {
            count: report.conflicts.count,
            first: report.conflicts.first.iter().map(Conflict::from).collect(),
        },
        partitions: report.offsets.iter().map(OfPartition::from).collect(),
        broker: BrokerSilence { compared: report.broker_problem.is_none(), reason: report.broker_problem.as_deref() },
    };
    let document = serde_json::to_string_pretty(&document).map_err(|error| Failure::Failed(error.into()))?;
    outln!("{document}");
    Ok(())
}

impl From<&TotalsDifference> for Totals {
    fn from(difference: &TotalsDifference) -> Self {
        Self {
            table: table_of(difference.granularity),
            date: date_of(difference),
            r#type: difference.event_type.as_str(),
            column: difference.column.as_str(),
            in_totals: difference.in_totals,
            by_events: difference.by_events,
            awaits_repair: difference.awaits_repair,
        }
    }
}

impl From<&LedgerDifference> for Ledger {
    fn from(LedgerDifference { day, fault }: &LedgerDifference) -> Self {
        let (fault, events, identities) = match *fault {
            LedgerFault::CountMismatch { identities, events } => ("event_identity_differs", events, Some(identities)),
            LedgerFault::NeverCounted { events } => ("never_counted", events, None),
            LedgerFault::NeverStored { events } => ("never_stored", events, None),
        };
        Self { day: day.to_string(), fault, events, identities }
    }
}

impl From<&Undecided> for NotDecided {
    fn from(undecided: &Undecided) -> Self {
        Self { day: undecided.day.to_string(), events_behind: undecided.events }
    }
}

impl<'a> From<&'a DroppedCopy> for Conflict<'a> {
    fn from(copy: &'a DroppedCopy) -> Self {
        let place = copy.place.as_ref();
        Self {
            source_id: &copy.source_id,
            event_id: copy.event_id.to_string(),
            kept: Copy { content: copy.kept.to_string(), day: copy.kept_day.to_string() },
            dropped: Copy { content: copy.dropped.to_string(), day: copy.dropped_day.to_string() },
            topic: place.map(|place| &*place.partition.topic),
            partition: place.map(|place| place.partition.number),
            offset: place.map(|place| place.offset),
            noticed_at: copy.noticed_at,
        }
    }
}

impl<'a> From<&'a OffsetReport> for OfPartition<'a> {
    fn from(report: &'a OffsetReport) -> Self {
        let group = report.group.as_ref();
        let offsets = |ranges: &[Range<i64>]| {
            ranges.iter().map(|range| Offsets { first: range.start, last: range.end - 1 }).collect()
        };
        Self {
            service: &report.service,
            topic: &report.partition.topic,
            partition: report.partition.number,
            first_offset: report.first,
            next_offset: report.next,
            done: report.done,
            in_flight: report.in_flight(),
            in_flight_offsets: offsets(&report.gaps),
            accepted: report.accepted,
            duplicates: report.duplicates,
            conflicts: report.conflicts,
            invalid: report.invalid,
            vacant: report.vacant,
            redelivered: report.redelivered,
            uncounted: report.uncounted,
            unaccounted: report.unaccounted(),
            committed: group.and_then(|group| group.committed),
            lag: group.map(|group| group.lag),
            lost_offsets: offsets(&report.lost()),
        }
    }
}

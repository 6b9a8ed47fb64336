//! The report of an audit, as text.

use std::ops::Range;

use netagg_core::{Day, Granularity};
use netagg_pg::{
    AuditOptions, AuditReport, AuditVerdict, ConflictingDuplicates, LedgerFault, OffsetReport, TotalsDifference,
    WaitingMonth,
};

use crate::process::outln;
use crate::process::terminal_escape::printable;
use crate::tables::{right_align, table};

pub(super) fn print(options: &AuditOptions, report: &AuditReport) {
    outln!("{} events on {} days compared{}.", report.events, report.days, range(options.from, options.to));
    if let Some(month) = report.dropped_through {
        outln!("Left out: the months up to {month}, because their events are dropped.");
    }
    if report.uncounted > 0 {
        outln!("{} of these events are not counted yet: the aggregator has not processed them.", report.uncounted);
    }
    for WaitingMonth { month, events, .. } in &report.set_aside {
        outln!(
            "{events} events of {month} are set aside: they are counted, but events_raw has no partition for them yet."
        );
    }
    if !report.offsets.is_empty() {
        outln!("\nRecords of the topic:");
        print_partitions(&report.offsets);
    }
    if let Some(reason) = &report.broker_problem {
        outln!("Not compared with the broker: {reason}");
    }
    print_conflicts(&report.conflicts);

    if !report.totals.is_empty() {
        outln!("\nTotals that differ from the sums over events_raw:");
        print_totals(&report.totals);
    }
    for wrong in &report.ledgers {
        outln!("{}: {}", wrong.day, describe(wrong.fault));
    }
    for offsets in &report.offsets {
        let (service, partition, lost) = (&offsets.service, &offsets.partition, offsets.lost());
        let unaccounted = offsets.unaccounted();
        if unaccounted != 0 {
            let outcome = if unaccounted > 0 { "lost in the service" } else { "counted twice" };
            let (count, first, last) = (unaccounted.abs(), offsets.first, offsets.next - 1);
            outln!("{service}, {partition}: {count} records of the offsets {first} to {last} were {outcome}");
        }
        if !lost.is_empty() {
            let lost = ranges(&lost);
            outln!("{service}, {partition}: lost offsets, committed but never processed: {lost}");
        }
    }
    for undecided in &report.undecided {
        let (day, events) = (undecided.day, undecided.events);
        outln!("{day}: could not tell: its totals contain {events} events that the ingestor has not stored yet");
    }
    outln!();
    match report.verdict() {
        AuditVerdict::Equal => {
            let known = if report.broker_problem.is_some() { " that the database knows" } else { "" };
            outln!("Equal: the totals are the sums over the events, and every record{known} is accounted for.");
        }
        AuditVerdict::Different => {
            outln!("DIFFERENT: the differences are listed above.");
            print_advice(report);
        }
        AuditVerdict::Undecided => outln!("Could not tell whether the totals and the events are equal."),
    }
}

/// Prints how to correct the totals. Lost records cannot be restored.
fn print_advice(report: &AuditReport) {
    if !report.set_aside.is_empty() {
        outln!(
            "First repair the partitions of the months whose events are set aside: /readyz of the ingestor gives the reason. \
             Then the services correct these events and totals by themselves."
        );
    }
    if let Some((first, last)) = report.days_to_rebuild() {
        outln!("Run `netagg rebuild --from {first} --to {last}` to recompute the totals from the events.");
    }
}

fn range(from: Option<Day>, to: Option<Day>) -> String {
    let from = from.map_or(String::new(), |from| format!(" from {from} on"));
    let to = to.map_or(String::new(), |to| format!(" up to {to}"));
    from + &to
}

fn print_totals(differences: &[TotalsDifference]) {
    let mut table = table(["table", "date", "type", "column", "in the table", "by events_raw", ""]);
    for difference in differences {
        let number = |number: Option<i128>| number.map_or("-".to_owned(), |number| number.to_string());
        table.add_row([
            table_of(difference.granularity).to_owned(),
            date_of(difference),
            difference.event_type.to_string(),
            difference.column.as_str().to_owned(),
            number(difference.in_totals),
            number(difference.by_events),
            if difference.awaits_repair { "awaits its repair" } else { "" }.to_owned(),
        ]);
    }
    right_align(&mut table, 4..6);
    outln!("{table}");
}

pub(super) fn table_of(granularity: Granularity) -> &'static str {
    match granularity {
        Granularity::Day => "agg_day",
        Granularity::Month => "agg_month",
    }
}

/// The day or the month of the difference, as text.
pub(super) fn date_of(difference: &TotalsDifference) -> String {
    match difference.granularity {
        Granularity::Day => difference.date.to_string(),
        Granularity::Month => difference.date.month().to_string(),
    }
}

fn describe(fault: LedgerFault) -> String {
    match fault {
        LedgerFault::CountMismatch { identities, events } => {
            format!("event_identity has {identities} identities, but events_raw has {events} events")
        }
        LedgerFault::NeverCounted { events } => {
            format!("{events} stored events are not in agg_identity, although the aggregator has passed their offsets")
        }
        LedgerFault::NeverStored { events } => {
            format!("{events} events of agg_identity are not stored, although the ingestor has passed their offsets")
        }
    }
}

fn print_conflicts(conflicts: &ConflictingDuplicates) {
    if conflicts.count == 0 {
        return;
    }
    let shown = match conflicts.first.len() as u64 {
        shown if shown < conflicts.count => format!(", the first {shown} are listed"),
        _ => String::new(),
    };
    outln!("\nConflicting duplicates: {}{shown}. The totals contain the kept copies.", conflicts.count);
    let mut table = table(["source_id", "event_id", "kept", "of day", "dropped", "of day", "at", "noticed"]);
    for copy in &conflicts.first {
        table.add_row([
            printable(copy.source_id.as_bytes()),
            copy.event_id.to_string(),
            copy.kept.to_string(),
            copy.kept_day.to_string(),
            copy.dropped.to_string(),
            copy.dropped_day.to_string(),
            copy.position.as_ref().map_or("-".to_owned(), ToString::to_string),
            copy.noticed_at.to_string(),
        ]);
    }
    outln!("{table}");
}

fn print_partitions(reports: &[OffsetReport]) {
    let mut table = table([
        "service",
        "partition",
        "offsets",
        "done",
        "in flight",
        "accepted",
        "duplicates",
        "conflicts",
        "invalid",
        "vacant",
        "redelivered",
        "uncounted",
        "committed",
        "lag",
    ]);
    for report in reports {
        let group = report.group.as_ref();
        let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
        let in_flight = match report.in_flight() {
            0 => "0".to_owned(),
            count => format!("{count}: {}", ranges(&report.gaps)),
        };
        table.add_row([
            report.service.clone(),
            report.partition.to_string(),
            format!("{}..{}", report.first, report.next),
            report.done.to_string(),
            in_flight,
            report.accepted.to_string(),
            report.duplicates.to_string(),
            report.conflicts.to_string(),
            report.invalid.to_string(),
            report.vacant.to_string(),
            report.redelivered.to_string(),
            report.uncounted.to_string(),
            number(group.and_then(|group| group.committed)),
            number(group.map(|group| group.lag)),
        ]);
    }
    right_align(&mut table, 2..);
    outln!("{table}");
}

/// Ranges of offsets as text, with inclusive ends. Of many ranges, only the first few.
fn ranges(ranges: &[Range<i64>]) -> String {
    const SHOWN: usize = 5;
    let show = |range: &Range<i64>| match range.end - range.start {
        1 => range.start.to_string(),
        _ => format!("{} to {}", range.start, range.end - 1),
    };
    let mut shown = ranges.iter().take(SHOWN).map(show).collect::<Vec<_>>().join(", ");
    if ranges.len() > SHOWN {
        shown += ", and more";
    }
    shown
}

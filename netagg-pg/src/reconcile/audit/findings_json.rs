//! The JSON of findings whose JSON has another shape than their types. The names are an interface: see `docs/audit.md`.

use std::ops::Range;

use netagg_core::{ContentHash, Day, Granularity, Timestamp};
use serde::{Serialize, Serializer};

use super::conflicts::DroppedCopy;
use super::report::TotalsDifference;
use crate::reconcile::offsets::OffsetReport;

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

impl Serialize for TotalsDifference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (table, date) = match self.granularity {
            Granularity::Day => ("agg_day", self.date.to_string()),
            Granularity::Month => ("agg_month", self.date.month().to_string()),
        };
        let (r#type, column) = (self.event_type.as_str(), self.column.as_str());
        let Self { in_totals, by_events, awaits_repair, .. } = *self;
        Totals { table, date, r#type, column, in_totals, by_events, awaits_repair }.serialize(serializer)
    }
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
    content: ContentHash,
    day: Day,
}

impl Serialize for DroppedCopy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let position = self.position.as_ref();
        let conflict = Conflict {
            source_id: &self.source_id,
            event_id: self.event_id.to_string(),
            kept: Copy { content: self.kept, day: self.kept_day },
            dropped: Copy { content: self.dropped, day: self.dropped_day },
            topic: position.map(|position| &*position.partition.topic),
            partition: position.map(|position| position.partition.number),
            offset: position.map(|position| position.offset),
            noticed_at: self.noticed_at,
        };
        conflict.serialize(serializer)
    }
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

/// A range of offsets, both inclusive.
#[derive(Serialize)]
struct Offsets {
    first: i64,
    last: i64,
}

impl Serialize for OffsetReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let group = self.group.as_ref();
        let offsets = |ranges: &[Range<i64>]| {
            ranges.iter().map(|range| Offsets { first: range.start, last: range.end - 1 }).collect()
        };
        let of_partition = OfPartition {
            service: &self.service,
            topic: &self.partition.topic,
            partition: self.partition.number,
            first_offset: self.first,
            next_offset: self.next,
            done: self.done,
            in_flight: self.in_flight(),
            in_flight_offsets: offsets(&self.gaps),
            accepted: self.accepted,
            duplicates: self.duplicates,
            conflicts: self.conflicts,
            invalid: self.invalid,
            vacant: self.vacant,
            redelivered: self.redelivered,
            uncounted: self.uncounted,
            unaccounted: self.unaccounted(),
            committed: group.and_then(|group| group.committed),
            lag: group.map(|group| group.lag),
            lost_offsets: offsets(&self.lost()),
        };
        of_partition.serialize(serializer)
    }
}

//! Which offsets each service has processed, and the outcomes of their records.

use std::ops::Range;

use netagg_core::PartitionId;
use netagg_core::ports::PartitionLag;
use sqlx::{FromRow, PgConnection};

use crate::client::PgError;

/// The offsets of a partition that a service has processed, and the outcomes of their records. The service updates these
/// counts in the transactions of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetReport {
    /// The service: `ingestor` or `aggregator`.
    pub service: String,
    /// The partition.
    pub partition: PartitionId,
    /// The first processed offset.
    pub first: i64,
    /// The offset after the last processed offset.
    pub next: i64,
    /// How many offsets are processed.
    pub done: i64,
    /// The first hundred ranges between `first` and `next` that are not processed: in flight, or lost.
    pub gaps: Vec<Range<i64>>,
    /// New events.
    pub accepted: i64,
    /// Copies of known events, with the same content.
    pub duplicates: i64,
    /// Copies of known events, with other content.
    pub conflicts: i64,
    /// Records without a valid event: dead letters.
    pub invalid: i64,
    /// Offsets without a record.
    pub vacant: i64,
    /// Offsets that were delivered again after they had been processed.
    pub redelivered: i64,
    /// Offsets processed by versions of netagg that did not count outcomes.
    pub uncounted: i64,
    /// The offsets of the service's consumer group in this partition, if an audit has compared them with the broker.
    pub group: Option<PartitionLag>,
    /// The processed ranges, in PostgreSQL's text form.
    done_ranges: String,
}

impl OffsetReport {
    /// How many offsets between `first` and `next` are not processed.
    pub fn in_flight(&self) -> i64 {
        self.next - self.first - self.done
    }

    /// How many processed records have no outcome. 0 is correct. Above 0, records were lost on their way through the
    /// service. Below 0, records were counted twice.
    pub fn unaccounted(&self) -> i64 {
        let outcomes = [self.accepted, self.duplicates, self.conflicts, self.invalid, self.vacant, self.uncounted];
        self.done + self.redelivered - outcomes.iter().sum::<i64>()
    }

    /// The offsets that the consumer group has committed and the service has not processed: lost records. Empty if the
    /// committed offset is not known.
    pub fn lost(&self) -> Vec<Range<i64>> {
        let committed = self.group.as_ref().and_then(|group| group.committed);
        committed.map(|committed| self.lost_before(committed)).unwrap_or_default()
    }

    /// The offsets below `committed`, the next offset of the consumer group, that the service has not processed: no consumer
    /// will read them again. Offsets before `first` are not known.
    pub fn lost_before(&self, committed: i64) -> Vec<Range<i64>> {
        let after = self.next..committed;
        let gaps = self.gaps.iter().cloned().chain([after]);
        gaps.map(|gap| gap.start..gap.end.min(committed)).filter(|gap| gap.start < gap.end).collect()
    }
}

/// Reads all reports: first the reports of the ingestor, then the reports of the aggregator.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Vec<OffsetReport>, PgError> {
    let rows: Vec<OffsetReportRow> =
        sqlx::query_as(include_str!("../../queries/progress/offset_reports.sql")).fetch_all(connection).await?;
    Ok(rows.into_iter().map(OffsetReport::from).collect())
}

/// Whether `service` has by now processed all offsets that `other` had processed in `reports`.
pub(super) async fn has_passed(
    connection: &mut PgConnection,
    service: &str,
    other: &str,
    reports: &[OffsetReport],
) -> Result<bool, PgError> {
    let others = || reports.iter().filter(|report| report.service == other);
    let has_passed = sqlx::query_scalar(include_str!("../../queries/progress/has_passed.sql"))
        .bind(service)
        .bind(others().map(|report| report.partition.topic.to_string()).collect::<Vec<_>>())
        .bind(others().map(|report| report.partition.number).collect::<Vec<_>>())
        .bind(others().map(|report| report.done_ranges.clone()).collect::<Vec<_>>())
        .fetch_one(connection)
        .await?;
    Ok(has_passed)
}

#[derive(Debug, FromRow)]
struct OffsetReportRow {
    service: String,
    topic: String,
    partition: i32,
    done_ranges: String,
    first: Option<i64>,
    next: Option<i64>,
    done: i64,
    gap_starts: Vec<i64>,
    gap_ends: Vec<i64>,
    accepted: i64,
    duplicates: i64,
    conflicts: i64,
    invalid: i64,
    vacant: i64,
    redelivered: i64,
    uncounted: i64,
}

impl From<OffsetReportRow> for OffsetReport {
    fn from(row: OffsetReportRow) -> Self {
        Self {
            service: row.service,
            partition: PartitionId::new(row.topic, row.partition),
            first: row.first.unwrap_or_default(),
            next: row.next.unwrap_or_default(),
            done: row.done,
            gaps: row.gap_starts.into_iter().zip(row.gap_ends).map(|(start, end)| start..end).collect(),
            accepted: row.accepted,
            duplicates: row.duplicates,
            conflicts: row.conflicts,
            invalid: row.invalid,
            vacant: row.vacant,
            redelivered: row.redelivered,
            uncounted: row.uncounted,
            group: None,
            done_ranges: row.done_ranges,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(first: i64, next: i64, gaps: &[Range<i64>]) -> OffsetReport {
        let missing: i64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
        OffsetReport {
            service: "ingestor".to_owned(),
            partition: PartitionId::new("events", 0),
            first,
            next,
            done: next - first - missing,
            gaps: gaps.to_vec(),
            accepted: next - first - missing,
            duplicates: 0,
            conflicts: 0,
            invalid: 0,
            vacant: 0,
            redelivered: 0,
            uncounted: 0,
            group: None,
            done_ranges: String::new(),
        }
    }

    #[test]
    fn committed_offsets_that_are_not_processed_are_lost() {
        let report = report(10, 50, &[20..25, 40..41]);
        assert_eq!(report.in_flight(), 6);
        assert_eq!(report.lost_before(20), []);
        assert_eq!(report.lost_before(22), vec![20..22; 1]);
        assert_eq!(report.lost_before(50), [20..25, 40..41]);
        assert_eq!(report.lost_before(53), [20..25, 40..41, 50..53]);
        assert_eq!(report.lost_before(3), [], "a recreated topic");
    }

    #[test]
    fn every_record_has_one_outcome() {
        let mut report = report(0, 100, &[]);
        assert_eq!(report.unaccounted(), 0);
        report.redelivered = 5;
        report.duplicates = 5;
        assert_eq!(report.unaccounted(), 0);
        report.accepted -= 1;
        assert_eq!(report.unaccounted(), 1);
    }
}

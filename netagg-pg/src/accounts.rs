//! What became of every record that a service has read.

use std::ops::Range;

use netagg_core::PartitionId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use crate::error::PgError;

/// The account that a service keeps of a partition, in the transactions of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Account {
    /// The service: `ingestor` or `aggregator`.
    pub service: String,
    /// The partition.
    pub partition: PartitionId,
    /// The first offset that is done with.
    pub first: i64,
    /// The offset after the last one that is done with.
    pub next: i64,
    /// How many offsets are done with.
    pub done: i64,
    /// Between the first and the next, the offsets that are not done with: in flight, or lost. The first hundred ranges.
    pub gaps: Vec<Range<i64>>,
    /// Events that were new.
    pub accepted: i64,
    /// Events that were there before, with the same content.
    pub duplicates: i64,
    /// Events that were there before, with other content.
    pub conflicts: i64,
    /// Records that hold no valid event: dead letters.
    pub invalid: i64,
    /// Offsets that hold no record.
    pub vacant: i64,
    /// Offsets that came again after they were done with.
    pub redelivered: i64,
    /// Offsets done with by versions of netagg that kept no account.
    pub uncounted: i64,
    /// The ranges done with, as PostgreSQL writes them.
    done_ranges: String,
}

impl Account {
    /// How many offsets are not done with between the first and the next.
    pub fn in_flight(&self) -> i64 {
        self.next - self.first - self.done
    }

    /// How many records were done with, less those that something became of: 0, or records were lost on their way
    /// through the service (above), or counted twice (below).
    pub fn unaccounted(&self) -> i64 {
        let became = [self.accepted, self.duplicates, self.conflicts, self.invalid, self.vacant, self.uncounted];
        self.done + self.redelivered - became.iter().sum::<i64>()
    }

    /// Which offsets below `committed`, where its group goes on, the service has not done with: nobody will read them
    /// again. What lies before the first is not known.
    pub fn lost_before(&self, committed: i64) -> Vec<Range<i64>> {
        let after = self.next..committed;
        let gaps = self.gaps.iter().cloned().chain([after]);
        gaps.map(|gap| gap.start..gap.end.min(committed)).filter(|gap| gap.start < gap.end).collect()
    }
}

/// Reads all accounts: the ingestor's, then the aggregator's.
pub(crate) async fn read(connection: &mut PgConnection) -> Result<Vec<Account>, PgError> {
    let rows = sqlx::query(include_str!("../queries/accounts.sql")).fetch_all(connection).await?;
    rows.iter().map(decode).collect()
}

/// Whether `service` has by now done all that `other` had when `accounts` were read.
pub(crate) async fn has_passed(
    connection: &mut PgConnection,
    service: &str,
    other: &str,
    accounts: &[Account],
) -> Result<bool, PgError> {
    let others = || accounts.iter().filter(|account| account.service == other);
    let has_passed = sqlx::query_scalar(include_str!("../queries/progress_passed.sql"))
        .bind(service)
        .bind(others().map(|account| account.partition.topic.to_string()).collect::<Vec<_>>())
        .bind(others().map(|account| account.partition.number).collect::<Vec<_>>())
        .bind(others().map(|account| account.done_ranges.clone()).collect::<Vec<_>>())
        .fetch_one(connection)
        .await?;
    Ok(has_passed)
}

fn decode(row: &PgRow) -> Result<Account, PgError> {
    let (from, to): (Vec<i64>, Vec<i64>) = (row.try_get(7)?, row.try_get(8)?);
    Ok(Account {
        service: row.try_get(0)?,
        partition: PartitionId::new(row.try_get::<&str, _>(1)?, row.try_get(2)?),
        done_ranges: row.try_get(3)?,
        first: row.try_get::<Option<_>, _>(4)?.unwrap_or_default(),
        next: row.try_get::<Option<_>, _>(5)?.unwrap_or_default(),
        done: row.try_get(6)?,
        gaps: from.into_iter().zip(to).map(|(from, to)| from..to).collect(),
        accepted: row.try_get(9)?,
        duplicates: row.try_get(10)?,
        conflicts: row.try_get(11)?,
        invalid: row.try_get(12)?,
        vacant: row.try_get(13)?,
        redelivered: row.try_get(14)?,
        uncounted: row.try_get(15)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(first: i64, next: i64, gaps: &[Range<i64>]) -> Account {
        let missing: i64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
        Account {
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
            done_ranges: String::new(),
        }
    }

    #[test]
    fn what_is_committed_and_not_done_is_lost() {
        let account = account(10, 50, &[20..25, 40..41]);
        assert_eq!(account.in_flight(), 6);
        assert_eq!(account.lost_before(20), []);
        assert_eq!(account.lost_before(22), vec![20..22; 1]);
        assert_eq!(account.lost_before(50), [20..25, 40..41]);
        assert_eq!(account.lost_before(53), [20..25, 40..41, 50..53]);
        assert_eq!(account.lost_before(3), [], "a topic made anew");
    }

    #[test]
    fn every_record_becomes_something_once() {
        let mut account = account(0, 100, &[]);
        assert_eq!(account.unaccounted(), 0);
        account.redelivered = 5;
        account.duplicates = 5;
        assert_eq!(account.unaccounted(), 0);
        account.accepted -= 1;
        assert_eq!(account.unaccounted(), 1);
    }
}

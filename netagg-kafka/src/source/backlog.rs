//! The lag of a source in one partition.

use std::collections::VecDeque;

use netagg_core::{Record, Timestamp};
use rdkafka::statistics::Partition;

/// Two times that differ by less than this count as the same time.
const RESOLUTION_MICROS: u64 = 1_000_000;

/// The records of a partition that are read and not processed, and the offsets that the broker holds. The state is as of
/// the last statistics, at most about one second ago.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Offsets and times of records that may not be processed, in the order of offsets. A record is left out if its time is
    /// close to the time of the entry before it. The list is never longer than the records that the consumer holds.
    read: VecDeque<(i64, Timestamp)>,
    /// The offset after the last record that was read.
    read_to: i64,
    /// How many offsets are not processed; `None` until the broker has reported them.
    events: Option<u64>,
    /// Since when there are records to read while none has been read.
    unread_since: Option<Timestamp>,
    committed: i64,
    /// Since when more is read than committed, without a new commit.
    uncommitted_since: Option<Timestamp>,
}

impl Backlog {
    /// Notes consecutive records of the partition. A second call with the same records has no effect.
    pub(crate) fn read(&mut self, records: &[Record], now: Timestamp) {
        let Some(first) = records.first() else { return };
        if first.offset < self.read_to {
            self.read.retain(|(offset, _)| *offset < first.offset);
        }
        for record in records {
            let time = record.instant().unwrap_or(now);
            let is_apart = |(_, last): &(i64, Timestamp)| micros(*last).abs_diff(micros(time)) >= RESOLUTION_MICROS;
            if self.read.back().is_none_or(is_apart) {
                self.read.push_back((record.offset, time));
            }
            self.read_to = record.offset + 1;
        }
    }

    /// Updates the state from librdkafka's statistics of the partition. All offsets below `done` are processed. Without
    /// `done`, the committed offset counts, or else the first offset of the partition.
    pub(crate) fn update(&mut self, known: &Partition, done: Option<i64>, now: Timestamp) {
        let start = [known.committed_offset, known.lo_offset].into_iter().find(|offset| *offset >= 0);
        self.events = match done.or(start) {
            Some(done) if known.ls_offset >= 0 => {
                self.forget_below(done);
                Some(u64::try_from(known.ls_offset - done).unwrap_or(0))
            }
            _ => None,
        };
        let waits = self.events.is_some_and(|events| events > 0) && self.read.is_empty();
        self.unread_since = waits.then(|| self.unread_since.unwrap_or(now));

        let is_behind = known.app_offset > known.committed_offset.max(0);
        let has_moved = self.committed != known.committed_offset;
        self.uncommitted_since = is_behind.then(|| self.uncommitted_since.filter(|_| !has_moved).unwrap_or(now));
        self.committed = known.committed_offset;
    }

    fn forget_below(&mut self, done: i64) {
        if done >= self.read_to {
            self.read.clear();
        }
        while self.read.get(1).is_some_and(|(offset, _)| *offset <= done) {
            self.read.pop_front();
        }
    }

    /// How many offsets of the partition are not processed; `None` until the broker has reported them.
    pub(crate) fn events(&self) -> Option<u64> {
        self.events
    }

    /// The age of the oldest record that is read and not processed. If no such record is read, the time for which there has
    /// been a record to read. Zero if all offsets are processed.
    pub(crate) fn age_micros(&self, now: Timestamp) -> u64 {
        if self.events == Some(0) {
            return 0;
        }
        let since = self.read.front().map(|(_, time)| *time).or(self.unread_since);
        since.map_or(0, |since| age(since, now))
    }

    /// How long there has been no new commit, although more is read than committed.
    pub(crate) fn uncommitted_micros(&self, now: Timestamp) -> u64 {
        self.uncommitted_since.map_or(0, |since| age(since, now))
    }
}

fn micros(time: Timestamp) -> i64 {
    time.as_micros()
}

/// The time from `since` to `now`. Zero if `since` is in the future, because clocks differ.
fn age(since: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(micros(now).saturating_sub(micros(since))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use netagg_core::PartitionId;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    /// One record for each offset. Its time is its offset in seconds.
    fn records(offsets: std::ops::Range<i64>) -> Vec<Record> {
        let record = |offset| Record {
            partition: PartitionId::new("topic", 0),
            offset,
            timestamp: Some(at(offset).into()),
            key: None,
            value: None,
            headers: Vec::new(),
        };
        offsets.map(record).collect()
    }

    /// Statistics of a partition that is fetched up to `end`, and handed over up to `app`.
    fn known(committed: i64, app: i64, end: i64) -> Partition {
        let (committed_offset, app_offset) = (committed, app);
        Partition { committed_offset, app_offset, next_offset: end, ls_offset: end, ..Partition::default() }
    }

    #[test]
    fn the_oldest_unprocessed_record_determines_the_age() {
        let mut backlog = Backlog::default();
        assert_eq!((backlog.events(), backlog.age_micros(at(5))), (None, 0), "nothing is known yet");
        backlog.read(&records(10..20), at(100));
        backlog.update(&known(10, 20, 25), None, at(100));
        assert_eq!((backlog.events(), backlog.age_micros(at(100))), (Some(15), 90_000_000));
        backlog.update(&known(10, 20, 25), Some(14), at(100));
        assert_eq!((backlog.events(), backlog.age_micros(at(100))), (Some(11), 86_000_000));
        backlog.read(&records(20..25), at(100));
        backlog.read(&records(20..25), at(100));
        backlog.update(&known(10, 25, 25), Some(21), at(100));
        assert_eq!(backlog.age_micros(at(100)), 79_000_000, "records noted twice count once");
        backlog.update(&known(10, 25, 25), Some(25), at(101));
        assert_eq!((backlog.events(), backlog.age_micros(at(200))), (Some(0), 0));
    }

    #[test]
    fn unread_records_age_from_the_time_when_they_were_noticed() {
        let mut backlog = Backlog::default();
        for now in [100, 105] {
            backlog.update(&Partition { next_offset: 10, ..known(10, -1001, 30) }, None, at(now));
        }
        assert_eq!((backlog.events(), backlog.age_micros(at(107))), (Some(20), 7_000_000));
        backlog.read(&records(10..30), at(108));
        assert_eq!(backlog.age_micros(at(108)), 98_000_000, "once a record is read, its own time counts");
    }

    #[test]
    fn a_group_without_a_position_lags_by_the_whole_partition() {
        let mut backlog = Backlog::default();
        let fresh = Partition { lo_offset: 5, next_offset: 5, ..known(-1001, -1001, 25) };
        backlog.update(&fresh, None, at(100));
        assert_eq!(backlog.events(), Some(20));
        backlog.update(&Partition { ls_offset: -1001, ..fresh }, None, at(100));
        assert_eq!(backlog.events(), None, "the broker has not reported the end");
    }

    #[test]
    fn reading_a_partition_again_forgets_the_earlier_reading() {
        let mut backlog = Backlog::default();
        backlog.read(&records(10..20), at(100));
        backlog.read(&records(0..3), at(100));
        backlog.update(&Partition { next_offset: 3, ..known(0, 3, 20) }, Some(0), at(100));
        assert_eq!((backlog.events(), backlog.age_micros(at(100))), (Some(20), 100_000_000));
        backlog.update(&known(0, 3, 3), Some(3), at(100));
        assert_eq!((backlog.events(), backlog.age_micros(at(100))), (Some(0), 0));
    }

    #[test]
    fn the_time_without_a_new_commit_grows() {
        let mut backlog = Backlog::default();
        let uncommitted = |backlog: &mut Backlog, committed, app, now| {
            backlog.update(&known(committed, app, app), None, at(now));
            backlog.uncommitted_micros(at(now)) / 1_000_000
        };
        assert_eq!(uncommitted(&mut backlog, -1001, -1001, 100), 0);
        assert_eq!(uncommitted(&mut backlog, -1001, 5, 101), 0);
        assert_eq!(uncommitted(&mut backlog, -1001, 9, 104), 3);
        assert_eq!(uncommitted(&mut backlog, 5, 9, 105), 0, "the committed offset has moved");
        assert_eq!(uncommitted(&mut backlog, 5, 9, 107), 2);
        assert_eq!(uncommitted(&mut backlog, 9, 9, 109), 0);
    }
}

//! Finds the offsets at the end of a partition that hold no record.
//!
//! librdkafka never hands over markers of transactions and records of aborted transactions, so a position never moves past
//! them by itself. But librdkafka reports the end of a partition (`enable.partition.eof`), and its statistics have the
//! offset of this end. Every record below this offset has been handed over.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use netagg_core::PartitionId;
use rdkafka::statistics::Partition;

/// The assigned partitions, by number, and how far each has been read.
#[derive(Debug, Default)]
pub(super) struct Tails {
    /// How many statistics have been processed.
    statistics: u64,
    partitions: BTreeMap<i32, Tail>,
}

#[derive(Debug)]
struct Tail {
    /// The position that the group had committed when the partition was assigned: 0 without a position, `None` if it is
    /// unknown.
    committed: Option<i64>,
    /// The offset after the last offset that was read or found without a record; `None` before the first.
    next: Option<i64>,
    /// The end of the partition that librdkafka has reached. Records before it may still wait to be handed over.
    end: Option<i64>,
    /// How many statistics had been processed when the end of the partition was last reached; `None` if it was not reached.
    end_reached: Option<u64>,
    /// Whether the partition has given a record or its end since the last statistics.
    has_moved: bool,
    /// When the partition last gave a record or its end, to the second of the statistics, or when it was assigned.
    moved: Instant,
}

/// Offsets of a partition that hold no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vacant {
    pub(super) partition: i32,
    pub(super) from: i64,
    pub(super) to: i64,
    /// How many of these offsets the broker deleted before they were read. They may have held records.
    pub(super) deleted: i64,
}

impl Tails {
    /// Adds assigned partitions. `committed` has the committed positions of the group, as far as known, and 0 without a
    /// position.
    pub(super) fn assign(&mut self, partitions: &[PartitionId], committed: &BTreeMap<i32, i64>) {
        self.partitions.extend(partitions.iter().map(|PartitionId { number, .. }| {
            let committed = committed.get(number).copied();
            (
                *number,
                Tail { committed, next: None, end: None, end_reached: None, has_moved: false, moved: Instant::now() },
            )
        }));
    }

    /// The committed position of the group, if `offset` is the first offset that is read, and is greater than this position.
    pub(super) fn skipped_before(&self, partition: i32, offset: i64) -> Option<i64> {
        let tail = self.partitions.get(&partition).filter(|tail| tail.next.is_none())?;
        tail.committed.filter(|committed| *committed < offset)
    }

    /// Whether `partition` is assigned.
    pub(super) fn has(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    pub(super) fn revoke(&mut self, partitions: &[PartitionId]) {
        self.partitions.retain(|number, _| !partitions.iter().any(|revoked| revoked.number == *number));
    }

    /// Notes that the record at `offset` was handed over.
    pub(super) fn read(&mut self, partition: i32, offset: i64) {
        let Some(tail) = self.partitions.get_mut(&partition) else { return };
        if tail.next.is_some_and(|next| offset < next) {
            // The position was reset, so the end that was reached does not belong to the new reading.
            (tail.end, tail.end_reached) = (None, None);
        }
        tail.next = Some(offset + 1);
        tail.has_moved = true;
    }

    /// Notes that the end of the partition was reached.
    pub(super) fn reach_end(&mut self, partition: i32) {
        if let Some(tail) = self.partitions.get_mut(&partition) {
            tail.end_reached = Some(self.statistics);
            tail.has_moved = true;
        }
    }

    /// Forgets which ends were reached. Pausing discards records before an end that librdkafka has reported.
    pub(super) fn forget_ends(&mut self) {
        self.partitions.values_mut().for_each(|tail| tail.end_reached = None);
    }

    /// Processes librdkafka's statistics of the partitions. Returns the offsets without a record that librdkafka has read past.
    pub(super) fn update(&mut self, known: &HashMap<i32, Partition>) -> Vec<Vacant> {
        self.statistics += 1;
        let now = Instant::now();
        let mut vacant = Vec::new();
        for (&partition, tail) in &mut self.partitions {
            if std::mem::take(&mut tail.has_moved) {
                tail.moved = now;
            }
            let Some(known) = known.get(&partition) else { continue };
            // Statistics overtake records, and may be made while the end is being reached. The second statistics after the
            // end are certainly newer than it, and do not describe an earlier assignment.
            let is_recent = tail.end_reached.is_some_and(|reached| self.statistics >= reached + 2);
            if is_recent && known.eof_offset >= 0 {
                tail.end = Some(known.eof_offset);
            }
            let has_all = known.fetchq_cnt == 0 && known.eof_offset >= 0 && known.eof_offset == known.next_offset;
            let Some(from) = tail.next.or_else(|| tail.start(known)) else { continue };
            if is_recent && has_all && from < known.eof_offset {
                tail.next = Some(known.eof_offset);
                let deleted = known.lo_offset.min(known.eof_offset).saturating_sub(from).max(0);
                vacant.push(Vacant { partition, from, to: known.eof_offset, deleted });
            }
        }
        vacant
    }

    /// The partitions that have given nothing since `since`, and the offset up to which librdkafka has read each partition,
    /// as far as known.
    pub(super) fn quiet_since(&self, since: Instant) -> BTreeMap<i32, Option<i64>> {
        let quiet = self.partitions.iter().filter(|(_, tail)| tail.moved <= since);
        quiet.map(|(partition, tail)| (*partition, tail.next.max(tail.end))).collect()
    }
}

impl Tail {
    /// Where the reading began if no record was read: at the position that the group had committed, or at the first
    /// offset that the broker has.
    fn start(&self, known: &Partition) -> Option<i64> {
        let first = Some(known.lo_offset).filter(|first| *first >= 0);
        match self.committed {
            Some(0) => first,
            None => Some(known.committed_offset).filter(|committed| *committed >= 0).or(first),
            committed => committed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned() -> Tails {
        let mut tails = Tails::default();
        tails.assign(&[PartitionId::new("topic", 0)], &BTreeMap::new());
        tails
    }

    /// Everything up to `end` was fetched and handed over.
    fn ended(end: i64) -> Partition {
        Partition { eof_offset: end, next_offset: end, committed_offset: -1001, lo_offset: 0, ..Partition::default() }
    }

    fn update(tails: &mut Tails, known: Partition) -> Vec<(i64, i64)> {
        tails.update(&HashMap::from([(0, known)])).iter().map(|vacant| (vacant.from, vacant.to)).collect()
    }

    #[test]
    fn the_offsets_between_the_last_record_and_the_end_are_vacant() {
        let mut tails = assigned();
        tails.read(0, 23);
        tails.reach_end(0);
        assert_eq!(update(&mut tails, ended(25)), [], "these statistics may be older than the end");
        assert_eq!(update(&mut tails, Partition { fetchq_cnt: 1, ..ended(25) }), [], "a record may wait");
        assert_eq!(update(&mut tails, Partition { next_offset: 26, ..ended(25) }), [], "librdkafka has read further");
        assert_eq!(update(&mut tails, ended(25)), [(24, 25)]);
        assert_eq!(update(&mut tails, ended(25)), [], "reported once");
        tails.reach_end(0);
        update(&mut tails, ended(27));
        assert_eq!(update(&mut tails, ended(27)), [(25, 27)]);
        tails.read(0, 27);
        tails.reach_end(0);
        update(&mut tails, ended(28));
        assert_eq!(update(&mut tails, ended(28)), [], "the last offset holds a record");
    }

    #[test]
    fn without_a_record_reading_began_at_the_committed_position_or_the_first_offset() {
        for (committed, low, from) in [(24, 0, 24), (24, 24, 24), (-1001, 3, 3), (5, 10, 5), (20, 25, 20)] {
            let mut tails = assigned();
            tails.reach_end(0);
            let known = Partition { committed_offset: committed, lo_offset: low, ..ended(25) };
            update(&mut tails, known.clone());
            assert_eq!(update(&mut tails, known), [(from, 25)]);
        }
        let mut tails = assigned();
        tails.reach_end(0);
        for _ in 0..3 {
            assert_eq!(
                update(&mut tails, Partition { lo_offset: -1001, ..ended(25) }),
                [],
                "the first offset is not known yet"
            );
        }
        let mut tails = Tails::default();
        tails.assign(&[PartitionId::new("topic", 0)], &BTreeMap::from([(0, 20)]));
        tails.reach_end(0);
        // The committed position may have moved meanwhile.
        let known = Partition { committed_offset: 25, ..ended(25) };
        update(&mut tails, known.clone());
        assert_eq!(update(&mut tails, known), [(20, 25)]);
    }

    #[test]
    fn only_before_the_first_record_can_offsets_be_skipped() {
        let mut tails = Tails::default();
        tails.assign(&[0, 1].map(|number| PartitionId::new("topic", number)), &BTreeMap::from([(0, 20)]));
        assert_eq!((tails.skipped_before(0, 22), tails.skipped_before(0, 20)), (Some(20), None));
        assert_eq!(tails.skipped_before(1, 22), None, "the committed position of the group is unknown");
        tails.read(0, 22);
        assert_eq!(tails.skipped_before(0, 30), None);
    }

    #[test]
    fn an_end_of_an_earlier_reading_does_not_count() {
        let mut tails = assigned();
        tails.read(0, 99);
        tails.reach_end(0);
        tails.read(0, 3);
        for _ in 0..3 {
            assert_eq!(update(&mut tails, ended(101)), [], "the position was reset");
        }
        tails.reach_end(0);
        tails.forget_ends();
        for _ in 0..3 {
            assert_eq!(update(&mut tails, ended(101)), [], "records before the end were discarded");
        }
        tails.reach_end(0);
        tails.revoke(&[PartitionId::new("topic", 0)]);
        tails.assign(&[PartitionId::new("topic", 0)], &BTreeMap::new());
        for _ in 0..3 {
            assert_eq!(update(&mut tails, ended(101)), [], "another assignment");
        }
    }

    #[test]
    fn a_partition_that_gives_something_is_not_quiet() {
        let mut tails = assigned();
        let begun = Instant::now();
        tails.read(0, 7);
        update(&mut tails, ended(8));
        assert_eq!(tails.quiet_since(begun), BTreeMap::new());
        assert_eq!(tails.quiet_since(Instant::now()), BTreeMap::from([(0, Some(8))]));
        tails.reach_end(0);
        for _ in 0..2 {
            // Records of other partitions wait, so that nothing is known to be vacant yet.
            assert_eq!(update(&mut tails, Partition { fetchq_cnt: 1, ..ended(10) }), []);
        }
        assert_eq!(tails.quiet_since(Instant::now()), BTreeMap::from([(0, Some(10))]));
    }
}

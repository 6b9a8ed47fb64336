//! Compares the ends of partitions at earlier looks with the offsets that the group has processed since then.

use std::collections::{BTreeMap, VecDeque};

use crate::ports::PartitionLag;
use crate::time::Timestamp;

/// The largest number of looks that the group has not reached. When there are more, every second look is removed.
const MAX_LOOKS: usize = 64;

/// The ends of the partitions at earlier looks.
#[derive(Debug, Default)]
pub(super) struct Watermarks {
    /// The looks that the group has not reached: the instant of each, and the end of each partition.
    open: VecDeque<(Timestamp, BTreeMap<i32, i64>)>,
    /// The previous look: the committed offset and the end of each partition.
    last: BTreeMap<i32, (Option<i64>, i64)>,
}

impl Watermarks {
    /// Adds a look that began at `at`. It has read the ends of all partitions, then the offsets of the group. Returns the latest
    /// instant up to which the whole topic is processed, if this instant is new.
    pub(super) fn look(&mut self, at: Timestamp, seen: &[PartitionLag]) -> Option<Timestamp> {
        let now: BTreeMap<_, _> = seen.iter().map(|lag| (lag.number, (lag.committed, lag.high))).collect();
        let has_not_shrunk =
            |(number, (_, high)): (&i32, &(_, i64))| now.get(number).is_some_and(|(_, now)| now >= high);
        if !self.last.iter().all(has_not_shrunk) {
            // The topic was deleted, and a topic with the same name was created.
            self.open.clear();
        }
        self.last = now;
        if seen.is_empty() {
            return None;
        }
        self.open.push_back((at, seen.iter().map(|lag| (lag.number, lag.high)).collect()));
        let is_reached = |ends: &BTreeMap<i32, i64>| {
            seen.iter().all(|lag| {
                ends.get(&lag.number).is_none_or(|end| processed_up_to(lag).is_some_and(|offset| offset >= *end))
            })
        };
        let mut through = None;
        while let Some((at, _)) = self.open.pop_front_if(|(_, ends)| is_reached(ends)) {
            through = Some(at);
        }
        if self.open.len() > MAX_LOOKS {
            let mut is_kept = false;
            self.open.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        through
    }

    /// Whether neither the committed offset nor the end of the partition has moved since the previous look.
    pub(super) fn is_idle(&self, lag: &PartitionLag) -> bool {
        self.last.get(&lag.number) == Some(&(lag.committed, lag.high))
    }

    /// Removes all looks, because the topic does not exist any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The offset below which the group has processed every record; `None` if this is not known.
fn processed_up_to(lag: &PartitionLag) -> Option<i64> {
    match lag.committed {
        // The offset was committed for an earlier topic of the same name.
        Some(committed) if committed > lag.high => None,
        _ if lag.lag == 0 => Some(lag.high),
        committed => committed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).expect("in range")
    }

    /// A look at partitions from number 0, each as (committed offset, end). A negative committed offset means none.
    fn seen(partitions: &[(i64, i64)]) -> Vec<PartitionLag> {
        let lag = |(number, &(committed, high)): (i32, &(i64, i64))| PartitionLag {
            number,
            committed: Some(committed).filter(|committed| *committed >= 0),
            high,
            lag: (high - committed.max(0)).max(0),
        };
        (0..).zip(partitions).map(lag).collect()
    }

    #[test]
    fn the_instant_follows_a_group_that_keeps_up() {
        let mut watermarks = Watermarks::default();
        assert_eq!(watermarks.look(at(0), &seen(&[(-1, 0), (-1, 0)])), Some(at(0)), "an empty topic is complete");
        assert_eq!(watermarks.look(at(5), &seen(&[(8, 10), (0, 0)])), None);
        // The look at second 5 is reached. The records after it do not matter.
        assert_eq!(watermarks.look(at(10), &seen(&[(11, 30), (2, 2)])), Some(at(5)));
        assert_eq!(watermarks.look(at(15), &seen(&[(30, 30), (2, 2)])), Some(at(15)));
        assert_eq!(
            watermarks.look(at(20), &seen(&[(30, 30), (2, 2)])),
            Some(at(20)),
            "idle partitions do not hold the instant back"
        );
    }

    #[test]
    fn the_instant_waits_for_lagging_and_unassigned_partitions() {
        let mut watermarks = Watermarks::default();
        for second in 0..10 {
            assert_eq!(watermarks.look(at(second), &seen(&[(100 + second, 100 + second), (5, 6 + second)])), None);
        }
        assert_eq!(
            watermarks.look(at(10), &seen(&[(110, 110), (9, 16)])),
            Some(at(3)),
            "up to the position of the lagging partition"
        );
        // A new partition.
        assert_eq!(watermarks.look(at(11), &seen(&[(110, 110), (16, 16), (-1, 3)])), Some(at(10)));
        assert_eq!(watermarks.look(at(12), &seen(&[(110, 110), (16, 16), (-1, 3)])), None);
        assert_eq!(watermarks.look(at(13), &seen(&[(110, 110), (16, 16), (3, 3)])), Some(at(13)));
    }

    #[test]
    fn transaction_markers_do_not_hold_the_instant_back() {
        let mut watermarks = Watermarks::default();
        let behind = seen(&[(9, 10)]);
        assert!(!watermarks.is_idle(&behind[0]));
        assert_eq!(watermarks.look(at(0), &behind), None);
        assert!(watermarks.is_idle(&behind[0]));
        let empty = PartitionLag { lag: 0, ..behind[0].clone() };
        assert_eq!(watermarks.look(at(5), &[empty]), Some(at(5)));
    }

    #[test]
    fn a_new_topic_of_the_same_name_starts_without_earlier_looks() {
        let mut watermarks = Watermarks::default();
        assert_eq!(watermarks.look(at(0), &seen(&[(90, 100)])), None);
        // The committed offset of the group is still the offset of the deleted topic.
        assert_eq!(watermarks.look(at(5), &seen(&[(100, 7)])), None);
        assert_eq!(watermarks.look(at(10), &seen(&[(100, 8)])), None);
        assert_eq!(watermarks.look(at(15), &seen(&[(8, 8)])), Some(at(15)));
        assert_eq!(watermarks.look(at(20), &[]), None, "a topic without partitions has no instant");
    }

    #[test]
    fn the_number_of_looks_is_bounded() {
        let mut watermarks = Watermarks::default();
        for second in 0..10_000 {
            assert_eq!(watermarks.look(at(second), &seen(&[(0, second + 1)])), None);
            assert!(watermarks.open.len() <= MAX_LOOKS);
        }
        assert_eq!(watermarks.look(at(10_000), &seen(&[(10_001, 10_001)])), Some(at(10_000)));
    }
}

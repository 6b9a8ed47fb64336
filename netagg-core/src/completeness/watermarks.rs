//! Ends of partitions at earlier looks, compared with the offsets that the group has processed since.

use std::collections::{BTreeMap, VecDeque};

use crate::ports::PartitionLag;
use crate::time::Timestamp;

/// How many looks are kept that the group has not reached. Beyond it, every second look is forgotten.
const MAX_LOOKS: usize = 64;

/// The ends of the partitions at some instants.
#[derive(Debug, Default)]
pub(super) struct Watermarks {
    /// The looks that the group has not reached, by their instant.
    open: VecDeque<(Timestamp, BTreeMap<i32, i64>)>,
    /// The previous look: of each partition, the committed offset and the end.
    last: BTreeMap<i32, (Option<i64>, i64)>,
}

impl Watermarks {
    /// Takes in a look that began at `at`: the ends of all partitions, then the offsets of the group. Returns the latest
    /// instant up to which everything is processed, if it is later than the one before.
    pub(super) fn look(&mut self, at: Timestamp, seen: &[PartitionLag]) -> Option<Timestamp> {
        let now: BTreeMap<_, _> = seen.iter().map(|lag| (lag.number, (lag.committed, lag.high))).collect();
        let goes_on = |(number, (_, high)): (&i32, &(_, i64))| now.get(number).is_some_and(|(_, now)| now >= high);
        if !self.last.iter().all(goes_on) {
            // The topic was deleted, and another one of its name was created.
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

    /// Forgets every look: the topic is gone.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The offset below which the group has processed every record; `None` if it is not known.
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

    /// A look at partitions from 0 on, each as (committed, end).
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
    fn it_follows_a_group_that_keeps_up() {
        let mut watermarks = Watermarks::default();
        assert_eq!(watermarks.look(at(0), &seen(&[(-1, 0), (-1, 0)])), Some(at(0)), "nothing is all there is");
        assert_eq!(watermarks.look(at(5), &seen(&[(8, 10), (0, 0)])), None);
        // What has come since is not waited for.
        assert_eq!(watermarks.look(at(10), &seen(&[(11, 30), (2, 2)])), Some(at(5)));
        assert_eq!(watermarks.look(at(15), &seen(&[(30, 30), (2, 2)])), Some(at(15)));
        assert_eq!(
            watermarks.look(at(20), &seen(&[(30, 30), (2, 2)])),
            Some(at(20)),
            "idle partitions hold nothing back"
        );
    }

    #[test]
    fn it_waits_for_the_partition_that_lags_or_that_nobody_has() {
        let mut watermarks = Watermarks::default();
        for second in 0..10 {
            assert_eq!(watermarks.look(at(second), &seen(&[(100 + second, 100 + second), (5, 6 + second)])), None);
        }
        assert_eq!(watermarks.look(at(10), &seen(&[(110, 110), (9, 16)])), Some(at(3)), "as far as that one has got");
        // A partition that was not there before.
        assert_eq!(watermarks.look(at(11), &seen(&[(110, 110), (16, 16), (-1, 3)])), Some(at(10)));
        assert_eq!(watermarks.look(at(12), &seen(&[(110, 110), (16, 16), (-1, 3)])), None);
        assert_eq!(watermarks.look(at(13), &seen(&[(110, 110), (16, 16), (3, 3)])), Some(at(13)));
    }

    #[test]
    fn marks_of_transactions_hold_nothing_back() {
        let mut watermarks = Watermarks::default();
        let behind = seen(&[(9, 10)]);
        assert!(!watermarks.is_idle(&behind[0]));
        assert_eq!(watermarks.look(at(0), &behind), None);
        assert!(watermarks.is_idle(&behind[0]));
        let empty = PartitionLag { lag: 0, ..behind[0].clone() };
        assert_eq!(watermarks.look(at(5), &[empty]), Some(at(5)));
    }

    #[test]
    fn a_topic_made_anew_begins_anew() {
        let mut watermarks = Watermarks::default();
        assert_eq!(watermarks.look(at(0), &seen(&[(90, 100)])), None);
        // The group's position outlived the topic.
        assert_eq!(watermarks.look(at(5), &seen(&[(100, 7)])), None);
        assert_eq!(watermarks.look(at(10), &seen(&[(100, 8)])), None);
        assert_eq!(watermarks.look(at(15), &seen(&[(8, 8)])), Some(at(15)));
        assert_eq!(watermarks.look(at(20), &[]), None, "without partitions nothing is known");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut watermarks = Watermarks::default();
        for second in 0..10_000 {
            assert_eq!(watermarks.look(at(second), &seen(&[(0, second + 1)])), None);
            assert!(watermarks.open.len() <= MAX_LOOKS);
        }
        assert_eq!(watermarks.look(at(10_000), &seen(&[(10_001, 10_001)])), Some(at(10_000)));
    }
}

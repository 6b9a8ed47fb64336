//! Up to which instant a group has done everything its topic held.
//!
//! It is learnt from looks at the broker alone, beside the work: a look tells where each partition ends, a later one that
//! the group has got there. So it moves on over partitions that nothing comes to, waits for those that lag or that nobody
//! has, and knows of all there are.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Error, PartitionId, Position, Timestamp};
use netagg_kafka::{KafkaTopics, PartitionLag};
use netagg_pg::Postgres;
use tokio_util::sync::CancellationToken;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(5);
/// How many looks are kept that the group has not come up to; beyond, every other one is forgotten.
const MARKS: usize = 64;

/// Whose completeness is followed.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) postgres: Postgres,
    pub(super) topics: KafkaTopics,
    pub(super) service: &'static str,
    pub(super) group: String,
    pub(super) topic: String,
}

impl Follower {
    /// Notes how far it is until `stop`. What cannot be learnt now is learnt later.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut marks = Marks::default();
        loop {
            netagg_core::crash::in_task("completeness");
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                looked = self.look(&mut marks) => match looked {
                    Ok(()) => {}
                    // Readiness tells why.
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(%error, service = self.service, "how complete it is cannot be told now");
                    }
                    Err(error) => {
                        tracing::warn!(%error, service = self.service, "how complete it is cannot be told");
                    }
                },
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn look(&self, marks: &mut Marks) -> Result<(), Error> {
        // Before the broker is asked: what it holds then, it holds when it answers.
        let at = SystemClock.now();
        let Some(mut seen) = self.topics.lag_in_offsets(&self.group, &self.topic).await? else {
            marks.forget();
            return Ok(());
        };
        // What stands still may have nothing but marks of transactions before it.
        if seen.iter().any(|lag| lag.lag > 0 && marks.stands_still(lag)) {
            seen = self.topics.lag(&self.group, &self.topic).await?.unwrap_or_default();
        }
        let Some(through) = marks.look(at, &seen) else { return Ok(()) };
        let committed: Vec<_> = seen
            .iter()
            .filter_map(|lag| {
                let partition = PartitionId::new(self.topic.as_str(), lag.number);
                Some(Position { partition, next_offset: lag.committed? })
            })
            .collect();
        if !self.postgres.note_complete(self.service, &self.topic, through, &committed).await? {
            tracing::warn!(
                service = self.service,
                "offsets are committed that the database has not done; `netagg audit` tells which"
            );
        }
        Ok(())
    }
}

/// Where the partitions ended at some instants.
#[derive(Debug, Default)]
struct Marks {
    /// Those that the group has not come up to, by their instant.
    open: VecDeque<(Timestamp, BTreeMap<i32, i64>)>,
    /// The look before: how far the group was in each partition, and where that ended.
    last: BTreeMap<i32, (Option<i64>, i64)>,
}

impl Marks {
    /// Takes in a look that was begun at `at`: of all partitions, where they end, and after that how far the group is.
    /// Returns the last instant up to which everything is done, if that is news.
    fn look(&mut self, at: Timestamp, seen: &[PartitionLag]) -> Option<Timestamp> {
        let now: BTreeMap<_, _> = seen.iter().map(|lag| (lag.number, (lag.committed, lag.high))).collect();
        let goes_on = |(number, (_, high)): (&i32, &(_, i64))| now.get(number).is_some_and(|(_, now)| now >= high);
        if !self.last.iter().all(goes_on) {
            // Another topic of the same name.
            self.open.clear();
        }
        self.last = now;
        if seen.is_empty() {
            return None;
        }
        self.open.push_back((at, seen.iter().map(|lag| (lag.number, lag.high)).collect()));
        let is_done = |ends: &BTreeMap<i32, i64>| {
            seen.iter().all(|lag| ends.get(&lag.number).is_none_or(|end| done_to(lag).is_some_and(|done| done >= *end)))
        };
        let mut through = None;
        while let Some((at, _)) = self.open.pop_front_if(|(_, ends)| is_done(ends)) {
            through = Some(at);
        }
        if self.open.len() > MARKS {
            let mut is_kept = false;
            self.open.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        through
    }

    /// Whether nothing has moved in the partition since the last look.
    fn stands_still(&self, lag: &PartitionLag) -> bool {
        self.last.get(&lag.number) == Some(&(lag.committed, lag.high))
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The offset below which the group has done everything, as far as it is known.
fn done_to(lag: &PartitionLag) -> Option<i64> {
    match lag.committed {
        // Of another topic of the same name.
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
        let mut marks = Marks::default();
        assert_eq!(marks.look(at(0), &seen(&[(-1, 0), (-1, 0)])), Some(at(0)), "nothing is all there is");
        assert_eq!(marks.look(at(5), &seen(&[(8, 10), (0, 0)])), None);
        // What has come since is not waited for.
        assert_eq!(marks.look(at(10), &seen(&[(11, 30), (2, 2)])), Some(at(5)));
        assert_eq!(marks.look(at(15), &seen(&[(30, 30), (2, 2)])), Some(at(15)));
        assert_eq!(marks.look(at(20), &seen(&[(30, 30), (2, 2)])), Some(at(20)), "idle partitions hold nothing back");
    }

    #[test]
    fn it_waits_for_the_partition_that_lags_or_that_nobody_has() {
        let mut marks = Marks::default();
        for second in 0..10 {
            assert_eq!(marks.look(at(second), &seen(&[(100 + second, 100 + second), (5, 6 + second)])), None);
        }
        assert_eq!(marks.look(at(10), &seen(&[(110, 110), (9, 16)])), Some(at(3)), "as far as that one has got");
        // A partition that was not there before.
        assert_eq!(marks.look(at(11), &seen(&[(110, 110), (16, 16), (-1, 3)])), Some(at(10)));
        assert_eq!(marks.look(at(12), &seen(&[(110, 110), (16, 16), (-1, 3)])), None);
        assert_eq!(marks.look(at(13), &seen(&[(110, 110), (16, 16), (3, 3)])), Some(at(13)));
    }

    #[test]
    fn marks_of_transactions_hold_nothing_back() {
        let mut marks = Marks::default();
        let behind = seen(&[(9, 10)]);
        assert!(!marks.stands_still(&behind[0]));
        assert_eq!(marks.look(at(0), &behind), None);
        assert!(marks.stands_still(&behind[0]));
        let empty = PartitionLag { lag: 0, ..behind[0].clone() };
        assert_eq!(marks.look(at(5), &[empty]), Some(at(5)));
    }

    #[test]
    fn a_topic_made_anew_begins_anew() {
        let mut marks = Marks::default();
        assert_eq!(marks.look(at(0), &seen(&[(90, 100)])), None);
        // The group's position outlived the topic.
        assert_eq!(marks.look(at(5), &seen(&[(100, 7)])), None);
        assert_eq!(marks.look(at(10), &seen(&[(100, 8)])), None);
        assert_eq!(marks.look(at(15), &seen(&[(8, 8)])), Some(at(15)));
        assert_eq!(marks.look(at(20), &[]), None, "without partitions nothing is known");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut marks = Marks::default();
        for second in 0..10_000 {
            assert_eq!(marks.look(at(second), &seen(&[(0, second + 1)])), None);
            assert!(marks.open.len() <= MARKS);
        }
        assert_eq!(marks.look(at(10_000), &seen(&[(10_001, 10_001)])), Some(at(10_000)));
    }
}

//! Detects a stalled consumer: it receives nothing, although the broker has records for it or for its group.
//!
//! A consumer may lose its brokers for good (<https://github.com/confluentinc/librdkafka/issues/5301>), wait for an answer
//! that a network has dropped, or take no part in a rebalance of its group. The consumer cannot distinguish this from a
//! topic without new records. So another client asks the broker from time to time. Evidence counts if two answers in a row
//! show it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::groups::GroupMemberInfo;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Membership;
use super::subscription::Subscription;
use super::tails::Tails;

/// How often the broker is asked, and how long a partition gives nothing before it counts as quiet.
const QUIET: Duration = Duration::from_secs(20);
/// How long after a first suspicion the broker is asked again.
const GRACE: Duration = Duration::from_secs(10);
/// How long one request to the broker may take.
const REQUEST: Duration = Duration::from_secs(5);
/// When a question without an answer is given up. Each of its requests has a time limit, but there may be many.
const NO_ANSWER: Duration = Duration::from_secs(60);
/// The longest wait before a consumer is replaced again. The wait doubles with each replacement that brings no record.
const MAX_QUIET: Duration = Duration::from_secs(320);
/// How often the number of answers doubles that a member needs before it begins a rebalance again. It doubles with each rebalance
/// that leaves partitions without a member.
const MAX_DOUBLINGS: u32 = 4;

/// Why a consumer must be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stall {
    pub(super) reason: String,
    /// Whether only a rebalance of the group helps. A successor with the `group.instance.id` of the stalled consumer gets the
    /// same partitions without a rebalance.
    pub(super) needs_rebalance: bool,
}

/// Decides when a consumer must be replaced.
#[derive(Debug)]
pub(super) struct StallDetector {
    subscription: Arc<Subscription>,
    /// How long after one answer the broker is asked again.
    quiet: Duration,
    /// How many rebalances of this member have left partitions without a member.
    rebalances_in_vain: u32,
    /// Since when the consumer could have received something, because it was polled all the time.
    watching_since: Instant,
    /// When the broker was last asked, or has last answered.
    asked: Instant,
    /// The question that has no answer yet.
    asking: Option<Receiver<KafkaResult<Answer>>>,
    /// The evidence in the last answers, and how many answers in a row have shown it.
    suspicion: Option<(Evidence, u32)>,
}

/// The answer of the broker to another client.
#[derive(Debug)]
struct Answer {
    /// The offsets of the quiet partitions: from the committed position of the group, or the first offset that the broker
    /// has, up to the last stable offset.
    offsets: BTreeMap<i32, Range<i64>>,
    group: Group,
}

/// The state of the group, as the coordinator reports it.
#[derive(Debug, PartialEq, Eq)]
enum Group {
    /// Each member has its partitions. `lowest` is the lowest partition of the topic that a member has. The partitions
    /// `unassigned` belong to no member.
    Stable { lowest: Option<i32>, unassigned: BTreeSet<i32> },
    /// The group is in a rebalance.
    Rebalancing,
    /// The group is of another kind, or has no member.
    Unknown,
}

/// The evidence that a consumer is stalled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Evidence {
    /// The consumer is not connected or not in its group, although another client gets answers.
    is_absent: bool,
    /// The consumer takes no part in a rebalance of its group, or has not finished a rebalance that the group has finished.
    is_left_behind: bool,
    /// The partitions of the consumer that have unread records, and give nothing.
    unread: BTreeSet<i32>,
    /// Partitions that no member of the group reads.
    unassigned: BTreeSet<i32>,
}

impl Evidence {
    /// The evidence that both have.
    fn and(&self, other: &Self) -> Self {
        Self {
            is_absent: self.is_absent && other.is_absent,
            is_left_behind: self.is_left_behind && other.is_left_behind,
            unread: &self.unread & &other.unread,
            unassigned: &self.unassigned & &other.unassigned,
        }
    }

    fn reason(&self) -> Option<String> {
        let Self { is_absent, is_left_behind, unread, unassigned } = self;
        if *is_absent {
            Some("the consumer is not in its group, although the broker and the coordinator answer".to_owned())
        } else if *is_left_behind {
            Some("the consumer and its group disagree about a rebalance".to_owned())
        } else if !unread.is_empty() {
            Some(format!("no records come from the partitions {unread:?}, although the broker has some"))
        } else if !unassigned.is_empty() {
            Some(format!("no member of the group reads the partitions {unassigned:?}"))
        } else {
            None
        }
    }
}

impl StallDetector {
    pub(super) fn new(subscription: Arc<Subscription>) -> Self {
        Self {
            subscription,
            quiet: QUIET,
            rebalances_in_vain: 0,
            watching_since: Instant::now(),
            asked: Instant::now(),
            asking: None,
            suspicion: None,
        }
    }

    /// Starts the detection again, because the partitions or the consumer have changed.
    pub(super) fn begin_again(&mut self) {
        self.watching_since = Instant::now();
        self.asked = self.watching_since;
        self.asking = None;
        self.suspicion = None;
    }

    /// Notes that the consumer was not polled for a moment, so its partitions could not give anything. The group is still watched:
    /// a reader may be slow for hours.
    pub(super) fn was_not_polled(&mut self) {
        self.watching_since = Instant::now();
    }

    /// Notes that the consumer has received something. So the next stall is noticed as soon as the first.
    pub(super) fn has_received(&mut self) {
        self.quiet = QUIET;
    }

    /// Returns why the consumer must be replaced, if it must.
    pub(super) fn check(&mut self, tails: &Tails, membership: Membership) -> Option<Stall> {
        let is_watched = self.watching_since.elapsed() >= self.quiet;
        let quiet = if is_watched { tails.quiet_since(self.watching_since) } else { BTreeMap::new() };
        if let Some(answer) = self.take_answer() {
            let lowest = answer.as_ref().ok().and_then(Answer::lowest);
            if answer.as_ref().is_ok_and(Answer::has_a_member_for_each_partition) {
                self.rebalances_in_vain = 0;
            }
            let evidence = answer.map(|answer| answer.evidence(&quiet, membership)).unwrap_or_default();
            let (evidence, times) = match &self.suspicion {
                Some((before, times)) => (evidence.and(before), times + 1),
                None => (evidence, 1),
            };
            let reason = evidence.reason();
            self.suspicion = reason.is_some().then_some((evidence.clone(), times));
            let needs_rebalance = !evidence.is_absent && !evidence.is_left_behind && evidence.unread.is_empty();
            let needed = if needs_rebalance {
                self.answers_before_a_rebalance(membership, lowest.is_some_and(|lowest| tails.has(lowest)))
            } else {
                2
            };
            if let Some(reason) = reason
                && times >= needed
            {
                self.begin_again();
                if needs_rebalance {
                    self.rebalances_in_vain += 1;
                } else {
                    self.quiet = (self.quiet * 2).min(MAX_QUIET);
                }
                return Some(Stall { reason, needs_rebalance });
            }
            self.asked = Instant::now();
        }
        let pause = if self.suspicion.is_some() { GRACE } else { self.quiet };
        if self.asking.is_none() && self.asked.elapsed() >= pause {
            self.ask(quiet.into_keys().collect());
        }
        None
    }

    /// How many answers in a row must show partitions without a member before this member begins a rebalance. All members see these
    /// partitions at the same time, so the numbers differ: a member without partitions is first, because it loses nothing. Then
    /// follows the member with the lowest partition, then all others.
    fn answers_before_a_rebalance(&self, membership: Membership, has_lowest: bool) -> u32 {
        let answers = match (membership.has_nothing_to_read, has_lowest) {
            (true, _) => 2,
            (false, true) => 4,
            (false, false) => 8,
        };
        answers << self.rebalances_in_vain.min(MAX_DOUBLINGS)
    }

    /// Asks the broker on a separate thread, because an answer may take long.
    fn ask(&mut self, partitions: Vec<i32>) {
        let (sender, receiver) = mpsc::channel();
        let subscription = Arc::clone(&self.subscription);
        let asking = thread::Builder::new().name("kafka probe".to_owned()).spawn(move || {
            let observer = subscription.observe();
            let answer =
                observer.as_ref().map_err(Clone::clone).and_then(|observer| ask(observer, &subscription, &partitions));
            // The consumer may have been replaced meanwhile. The answer is sent before the observer is dropped, because the drop may
            // never end.
            let _ = sender.send(answer);
        });
        match asking {
            Ok(_) => self.asking = Some(receiver),
            Err(error) => tracing::warn!(%error, "no thread to ask the broker"),
        }
        self.asked = Instant::now();
    }

    fn take_answer(&mut self) -> Option<KafkaResult<Answer>> {
        let answer = match self.asking.as_ref()?.try_recv() {
            Err(TryRecvError::Empty) if self.asked.elapsed() < NO_ANSWER => return None,
            answer => answer.ok(),
        };
        self.asking = None;
        self.asked = Instant::now();
        answer
    }
}

impl Answer {
    fn lowest(&self) -> Option<i32> {
        if let Group::Stable { lowest, .. } = self.group { lowest } else { None }
    }

    fn has_a_member_for_each_partition(&self) -> bool {
        matches!(&self.group, Group::Stable { unassigned, .. } if unassigned.is_empty())
    }

    /// The evidence of this answer against a consumer that has read the `quiet` partitions up to these offsets.
    fn evidence(&self, quiet: &BTreeMap<i32, Option<i64>>, membership: Membership) -> Evidence {
        let has_more = |(partition, offsets): (&i32, &Range<i64>)| {
            let next = quiet.get(partition)?;
            (next.unwrap_or(offsets.start) < offsets.end).then_some(*partition)
        };
        let unassigned = match &self.group {
            Group::Stable { unassigned, .. } if membership.is_settled => unassigned.clone(),
            _ => BTreeSet::new(),
        };
        let is_left_behind = match self.group {
            Group::Stable { .. } => !membership.is_settled,
            Group::Rebalancing => membership.is_settled,
            Group::Unknown => false,
        };
        Evidence {
            is_absent: !membership.is_member,
            is_left_behind,
            unread: self.offsets.iter().filter_map(has_more).collect(),
            unassigned,
        }
    }
}

/// Requests the offsets of `partitions` and the state of the group. Fails if the broker or the coordinator does not answer.
fn ask(consumer: &BaseConsumer, subscription: &Subscription, partitions: &[i32]) -> KafkaResult<Answer> {
    let topic = subscription.topic.as_str();
    let mut list = TopicPartitionList::with_capacity(partitions.len().max(1));
    // The coordinator is asked in any case.
    for partition in partitions.iter().chain(partitions.is_empty().then_some(&0)) {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, REQUEST)?;
    let offsets = |partition: &i32| {
        let (first, end) = consumer.fetch_watermarks(topic, *partition, REQUEST)?;
        let committed = match committed.find_partition(topic, *partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => first,
        };
        Ok((*partition, committed.max(first)..end))
    };
    let offsets = partitions.iter().map(offsets).collect::<KafkaResult<_>>()?;
    Ok(Answer { offsets, group: describe(consumer, &subscription.group, topic)? })
}

/// The state of `group`, whose members read `topic`, as the coordinator reports it.
fn describe(consumer: &BaseConsumer, group: &str, topic: &str) -> KafkaResult<Group> {
    let groups = consumer.fetch_group_list(Some(group), REQUEST)?;
    let Some(found) = groups.groups().iter().find(|found| found.name() == group) else { return Ok(Group::Unknown) };
    match found.state() {
        "Stable" => {}
        "PreparingRebalance" | "CompletingRebalance" => return Ok(Group::Rebalancing),
        _ => return Ok(Group::Unknown),
    }
    let assigned = found.members().iter().map(|member| assigned(member, topic)).collect::<Option<Vec<_>>>();
    let Some(assigned) = assigned else { return Ok(Group::Unknown) };
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST)?;
    let mut unassigned: BTreeSet<i32> =
        metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    unassigned.retain(|partition| !assigned.iter().flatten().any(|assigned| assigned == partition));
    Ok(Group::Stable { lowest: assigned.into_iter().flatten().min(), unassigned })
}

fn assigned(member: &GroupMemberInfo, topic: &str) -> Option<Vec<i32>> {
    partitions_of(member.assignment()?, topic)
}

/// The partitions of `topic` in an assignment. In the consumer protocol, an assignment is a version, then topics with their
/// partitions. `None` if the assignment cannot be read.
fn partitions_of(assignment: &[u8], topic: &str) -> Option<Vec<i32>> {
    let (_version, mut rest) = assignment.split_at_checked(2)?;
    let number = |rest: &mut &[u8]| {
        let (bytes, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        usize::try_from(i32::from_be_bytes(*bytes)).ok()
    };
    let topics = number(&mut rest)?;
    let mut found = Vec::new();
    for _ in 0..topics {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (name, tail) = tail.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        rest = tail;
        for _ in 0..number(&mut rest)? {
            let partition = number(&mut rest)?;
            if name == topic.as_bytes() {
                found.push(i32::try_from(partition).ok()?);
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use netagg_core::PartitionId;

    use super::*;
    use crate::KafkaConfig;

    const SETTLED: Membership = Membership { is_member: true, is_settled: true, has_nothing_to_read: false };

    fn stable(unassigned: &[i32]) -> Group {
        Group::Stable { lowest: None, unassigned: unassigned.iter().copied().collect() }
    }

    fn reason(answer: &Answer, quiet: &[(i32, Option<i64>)], membership: Membership) -> Option<String> {
        answer.evidence(&quiet.iter().copied().collect(), membership).reason()
    }

    #[test]
    fn only_quiet_partitions_with_more_to_read_speak_against_a_consumer() {
        let answer = Answer { offsets: BTreeMap::from([(0, 5..9), (1, 5..9)]), group: stable(&[]) };
        assert_eq!(reason(&answer, &[(0, Some(9)), (1, Some(9))], SETTLED), None);
        assert_eq!(reason(&answer, &[(0, Some(9))], SETTLED), None, "partition 1 is not quiet");
        let text = reason(&answer, &[(0, Some(9)), (1, None)], SETTLED).expect("a reason");
        assert!(text.contains("{1}"), "{text}");
        let answer = Answer { offsets: BTreeMap::from([(0, 9..9)]), group: Group::Unknown };
        assert_eq!(reason(&answer, &[(0, None)], SETTLED), None, "the group has read all records");
    }

    #[test]
    fn a_member_that_is_absent_or_takes_no_part_in_a_rebalance_is_suspected() {
        let answer = |group| Answer { offsets: BTreeMap::new(), group };
        let absent = Membership { is_member: false, is_settled: false, ..SETTLED };
        assert!(reason(&answer(stable(&[])), &[], absent).is_some());
        assert!(reason(&answer(Group::Rebalancing), &[], SETTLED).is_some());
        let joining = Membership { is_settled: false, ..SETTLED };
        assert_eq!(reason(&answer(Group::Rebalancing), &[], joining), None, "the consumer takes part");
        assert!(reason(&answer(stable(&[3])), &[], SETTLED).is_some_and(|text| text.contains("{3}")));
        assert!(reason(&answer(stable(&[])), &[], joining).is_some(), "the other members have finished");
        assert_eq!(reason(&answer(Group::Unknown), &[], joining), None);
    }

    #[test]
    fn what_two_answers_show_counts() {
        let one = Evidence { is_absent: true, unassigned: BTreeSet::from([1, 2]), ..Evidence::default() };
        let other = Evidence { is_left_behind: true, unassigned: BTreeSet::from([2, 3]), ..Evidence::default() };
        assert_eq!(one.and(&other), Evidence { unassigned: BTreeSet::from([2]), ..Evidence::default() });
    }

    fn detector() -> StallDetector {
        StallDetector::new(Arc::new(Subscription {
            config: KafkaConfig::new("localhost:9092"),
            group: "group".to_owned(),
            topic: "events".to_owned(),
        }))
    }

    #[test]
    fn while_the_reader_is_slow_only_the_group_is_watched() {
        let mut tails = Tails::default();
        tails.assign(&[PartitionId::new("events", 0)], &BTreeMap::from([(0, 5)]));
        for (unassigned, is_suspect) in [(&[][..], false), (&[3], true)] {
            let mut detector = detector();
            detector.was_not_polled();
            let (sender, receiver) = mpsc::channel();
            detector.asking = Some(receiver);
            let answer = Answer { offsets: BTreeMap::from([(0, 5..9)]), group: stable(unassigned) };
            sender.send(Ok(answer)).expect("a receiver");
            assert_eq!(detector.check(&tails, SETTLED), None);
            assert_eq!(detector.suspicion.is_some(), is_suspect);
        }
    }

    #[test]
    fn members_with_partitions_wait_longer_for_a_rebalance_and_rebalances_in_vain_double_the_wait() {
        let mut detector = detector();
        let idle = Membership { has_nothing_to_read: true, ..SETTLED };
        let answers = |detector: &StallDetector| {
            [(idle, false), (SETTLED, true), (SETTLED, false)]
                .map(|(membership, has_lowest)| detector.answers_before_a_rebalance(membership, has_lowest))
        };
        assert_eq!(answers(&detector), [2, 4, 8]);
        detector.rebalances_in_vain = 1;
        assert_eq!(answers(&detector), [4, 8, 16]);
        detector.rebalances_in_vain = 1_000;
        assert_eq!(answers(&detector), [32, 64, 128]);
    }

    #[test]
    fn an_assignment_is_read_in_the_form_of_the_consumer_protocol() {
        let mut bytes = vec![0, 3];
        bytes.extend(2_i32.to_be_bytes());
        for (name, partitions) in [("other", &[7][..]), ("events", &[0, 5])] {
            bytes.extend((name.len() as i16).to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend((partitions.len() as i32).to_be_bytes());
            partitions.iter().for_each(|partition: &i32| bytes.extend(partition.to_be_bytes()));
        }
        bytes.extend((-1_i32).to_be_bytes()); // no user data
        assert_eq!(partitions_of(&bytes, "events"), Some(vec![0, 5]));
        assert_eq!(partitions_of(&bytes, "more"), Some(vec![]));
        for length in 0..bytes.len() - 4 {
            assert_eq!(partitions_of(&bytes[..length], "events"), None, "{length}");
        }
        assert_eq!(partitions_of(&[0, 0, 0xff, 0xff, 0xff, 0xff], "events"), None);
    }
}

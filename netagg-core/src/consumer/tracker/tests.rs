use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::time::Timestamp;

fn partition(number: i32) -> PartitionId {
    PartitionId::new("events", number)
}

fn record(number: i32, offset: i64) -> Record {
    Record::new(partition(number), offset, "")
}

fn position(number: i32, next_offset: i64) -> Position {
    Position { partition: partition(number), next_offset }
}

#[test]
fn positions_wait_for_the_oldest_batch() {
    let mut tracker = OffsetTracker::default();
    tracker.read(&record(0, 10));
    tracker.read(&record(0, 11));
    let first = tracker.start();
    tracker.read(&record(0, 12));
    let second = tracker.start();
    tracker.finish(second);
    assert_eq!(tracker.take_positions(), []);
    tracker.finish(first);
    assert_eq!(tracker.take_positions(), [position(0, 13)]);
    assert_eq!(tracker.take_positions(), []);
}

#[test]
fn spans_join_over_offsets_without_records() {
    let mut tracker = OffsetTracker::default();
    tracker.read(&record(0, 10));
    let first = tracker.start().spans();
    tracker.read(&record(0, 17));
    let second = tracker.start().spans();
    assert_eq!((first[0].from, first[0].to), (10, 11));
    assert_eq!((second[0].from, second[0].to), (11, 18));
}

#[test]
fn vacant_offsets_are_passed_once_and_in_order() {
    let vacant = |from, to| Span { partition: partition(0), from, to, records: 0, last_timestamp: None };
    let span = |tracker: &mut OffsetTracker| {
        let ticket = tracker.start();
        let spans: Vec<_> = ticket.spans().iter().map(|span| (span.from, span.to, span.records)).collect();
        (ticket, spans)
    };
    let mut tracker = OffsetTracker::default();
    assert!(tracker.pass(&vacant(4, 6)), "a partition without a read record begins at the start of the span");
    assert!(!tracker.pass(&vacant(4, 6)));
    let (first, spans) = span(&mut tracker);
    assert_eq!(spans, [(4, 6, 0)]);
    tracker.read(&record(0, 10));
    let (second, spans) = span(&mut tracker);
    assert_eq!(spans, [(6, 11, 1)]);
    assert!(!tracker.pass(&vacant(4, 11)) && !tracker.has_pending());
    assert!(tracker.pass(&vacant(4, 13)) && tracker.has_pending());
    let (third, spans) = span(&mut tracker);
    assert_eq!(spans, [(11, 13, 0)]);
    tracker.finish(third);
    tracker.finish(first);
    assert_eq!(tracker.take_positions(), [position(0, 6)], "the record in flight is not passed");
    tracker.finish(second);
    assert_eq!(tracker.take_positions(), [position(0, 13)]);
}

#[test]
fn a_batch_from_before_a_revocation_does_not_move_the_position_after_it() {
    let mut tracker = OffsetTracker::default();
    tracker.read(&record(0, 10));
    tracker.read(&record(1, 5));
    let old = tracker.start();
    tracker.forget(&[partition(0)]);
    tracker.read(&record(0, 10));
    let new = tracker.start();
    tracker.finish(old);
    assert_eq!(tracker.take_positions(), [position(1, 6)]);
    tracker.finish(new);
    assert_eq!(tracker.take_positions(), [position(0, 11)]);
}

#[test]
fn the_tracker_follows_a_source_that_goes_back() {
    let mut tracker = OffsetTracker::default();
    tracker.read(&record(0, 10));
    let old = tracker.start();
    tracker.read(&record(0, 3));
    let new = tracker.start();
    assert_eq!(new.spans()[0].from, 3);
    tracker.finish(old);
    assert_eq!(tracker.take_positions(), []);
    tracker.finish(new);
    assert_eq!(tracker.take_positions(), [position(0, 4)]);
}

#[derive(Clone, Debug)]
enum Step {
    /// Reads the next record of this partition.
    Read(i32),
    /// Reads this partition again from this number of offsets before the committed offset: its position was reset.
    GoBack(i32, i64),
    /// Puts all read records into flight.
    Start,
    /// Finishes the batch in flight at this index.
    Finish(prop::sample::Index),
    /// Revokes these partitions. Another member finishes this number of offsets before the partitions come back.
    Forget(Vec<i32>, i64),
    /// Commits the positions.
    Take,
}

const PARTITIONS: std::ops::Range<i32> = 0..3;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => PARTITIONS.prop_map(Step::Read),
        1 => (PARTITIONS, 1_i64..12).prop_map(|(number, by)| Step::GoBack(number, by)),
        6 => Just(Step::Start),
        6 => any::<prop::sample::Index>().prop_map(Step::Finish),
        1 => (prop::collection::vec(PARTITIONS, 0..3), 0_i64..8).prop_map(|(lost, by)| Step::Forget(lost, by)),
        3 => Just(Step::Take),
    ]
}

/// The first record from `offset` on, in a log with holes. Some records have no timestamp.
fn next_record(number: i32, offset: i64) -> Record {
    let hole = |offset: &i64| (offset * 5 + i64::from(number)) % 7 >= 5 || offset / 10 % 4 == 3;
    let offset = (offset..).find(|offset| !hole(offset)).unwrap_or(offset);
    // The timestamps are not in the order of offsets, because producers set them.
    let timestamp = if offset % 3 == 0 { None } else { Timestamp::from_micros(offset * 37 % 100) };
    Record { timestamp: timestamp.map(Into::into), ..record(number, offset) }
}

/// One assignment of a partition, with each of its records.
struct Assignment {
    id: u32,
    /// The offset where reading began: the committed offset of the group.
    start: i64,
    records: Vec<Record>,
    /// How many of `records` were put into flight.
    started: usize,
    done: BTreeSet<i64>,
    /// The position at the last commit.
    taken: i64,
}

impl Assignment {
    fn next_read(&self) -> i64 {
        self.records.last().map_or(self.start, |record| record.offset + 1)
    }

    /// The offset after the last record up to which all records are done.
    fn position(&self) -> i64 {
        let is_done = |record: &&Record| self.done.contains(&record.offset);
        self.records.iter().take_while(is_done).last().map_or(self.start, |record| record.offset + 1)
    }
}

/// Records, each as (partition, assignment, offset).
type Records = Vec<(i32, u32, i64)>;

/// A simple model of the tracker, which remembers each record.
#[derive(Default)]
struct Model {
    assignments: u32,
    /// The current assignment of each partition.
    assigned: BTreeMap<i32, Assignment>,
    /// Records that are read and not in flight, including records from before a reset of the position.
    batch: Records,
    in_flight: Vec<(Ticket, Records)>,
    /// Offsets that any member has finished.
    finished: BTreeSet<(i32, i64)>,
    /// The committed offsets of the group.
    committed: BTreeMap<i32, i64>,
}

impl Model {
    fn committed(&self, number: i32) -> i64 {
        self.committed.get(&number).copied().unwrap_or(0)
    }

    /// Reads `record`. It begins a new assignment unless it follows the records of the current assignment.
    fn read(&mut self, tracker: &mut OffsetTracker, record: Record) {
        tracker.read(&record);
        let number = record.partition.number;
        if self.assigned.get(&number).is_some_and(|assignment| record.offset < assignment.next_read()) {
            self.assigned.remove(&number);
        }
        let id = self.assignments;
        let assignment = self.assigned.entry(number).or_insert_with(|| Assignment {
            id,
            start: record.offset,
            records: Vec::new(),
            started: 0,
            done: BTreeSet::new(),
            taken: record.offset,
        });
        self.assignments += 1;
        self.batch.push((number, assignment.id, record.offset));
        assignment.records.push(record);
    }

    /// Puts all read records into flight, and checks that the spans of the ticket match these records.
    fn start(&mut self, tracker: &mut OffsetTracker) -> Result<(), TestCaseError> {
        let ticket = tracker.start();
        let mut spans = Vec::new();
        for (&number, assignment) in &mut self.assigned {
            let from =
                assignment.started.checked_sub(1).map_or(assignment.start, |last| assignment.records[last].offset + 1);
            let new = &assignment.records[assignment.started..];
            if let Some(last) = new.last() {
                spans.push(Span {
                    partition: partition(number),
                    from,
                    to: last.offset + 1,
                    records: new.len() as u64,
                    last_timestamp: new.iter().rev().find_map(Record::instant),
                });
            }
            assignment.started = assignment.records.len();
        }
        prop_assert_eq!(ticket.spans(), spans);
        self.in_flight.push((ticket, std::mem::take(&mut self.batch)));
        Ok(())
    }

    fn finish(&mut self, tracker: &mut OffsetTracker, at: usize) {
        let (ticket, records) = self.in_flight.remove(at);
        tracker.finish(ticket);
        for (number, id, offset) in records {
            self.finished.insert((number, offset));
            if let Some(assignment) = self.assigned.get_mut(&number).filter(|assignment| assignment.id == id) {
                assignment.done.insert(offset);
            }
        }
    }

    fn forget(&mut self, tracker: &mut OffsetTracker, lost: &[i32], elsewhere: i64) {
        tracker.forget(&lost.iter().copied().map(partition).collect::<Vec<_>>());
        self.batch.retain(|(number, ..)| !lost.contains(number));
        for &number in lost {
            self.assigned.remove(&number);
            let committed = self.committed(number);
            self.finished.extend((committed..committed + elsewhere).map(|offset| (number, offset)));
            self.committed.insert(number, committed + elsewhere);
        }
    }

    /// Commits the positions of the tracker. Checks that they are exactly the positions that moved, and that no position passes a
    /// record that no member has finished.
    fn take(&mut self, tracker: &mut OffsetTracker) -> Result<(), TestCaseError> {
        let mut moved = Vec::new();
        for (&number, assignment) in &mut self.assigned {
            let now = assignment.position();
            if std::mem::replace(&mut assignment.taken, now) != now {
                moved.push(position(number, now));
            }
        }
        prop_assert_eq!(&tracker.take_positions(), &moved);
        for Position { partition, next_offset } in moved {
            let number = partition.number;
            let after = |record: &Record| Some(next_record(number, record.offset + 1));
            let lost = std::iter::successors(Some(next_record(number, 0)), after)
                .map(|record| record.offset)
                .take_while(|offset| *offset < next_offset)
                .find(|offset| !self.finished.contains(&(number, *offset)));
            prop_assert_eq!(
                lost,
                None,
                "an unfinished record; committed: offset {} of partition {}",
                next_offset,
                number
            );
            self.committed.insert(number, next_offset);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Compares the tracker with a model that remembers each record. Once all records are done, the positions are at the end.
    #[test]
    fn a_position_never_passes_a_record_that_is_not_done(
        steps in prop::collection::vec(step(), 1..150),
        order in any::<prop::sample::Index>(),
    ) {
        let mut tracker = OffsetTracker::default();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Read(number) => {
                    let assignment = model.assigned.get(&number);
                    let next = assignment.map_or_else(|| model.committed(number), Assignment::next_read);
                    model.read(&mut tracker, next_record(number, next));
                }
                Step::GoBack(number, by) => {
                    let reset = (model.committed(number) - by).max(0);
                    model.read(&mut tracker, next_record(number, reset));
                }
                Step::Start => model.start(&mut tracker)?,
                Step::Finish(at) => {
                    if !model.in_flight.is_empty() {
                        model.finish(&mut tracker, at.index(model.in_flight.len()));
                    }
                }
                Step::Forget(lost, elsewhere) => model.forget(&mut tracker, &lost, elsewhere),
                Step::Take => model.take(&mut tracker)?,
            }
        }

        model.start(&mut tracker)?;
        while !model.in_flight.is_empty() {
            model.finish(&mut tracker, order.index(model.in_flight.len()));
            model.take(&mut tracker)?;
        }
        for (&number, assignment) in &model.assigned {
            prop_assert_eq!(model.committed(number), assignment.next_read(), "the end of partition {}", number);
        }
        prop_assert_eq!(tracker.take_positions(), []);
    }
}

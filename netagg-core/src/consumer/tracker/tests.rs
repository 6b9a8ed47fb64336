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
    assert!(tracker.pass(&vacant(4, 6)), "a partition of which no record was read begins where the span does");
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
fn what_was_in_flight_before_a_revocation_does_not_count_after_it() {
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
fn a_source_that_goes_back_is_followed() {
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
    /// Reads this partition anew from so many offsets before what is committed: its position was reset.
    GoBack(i32, i64),
    Start,
    /// Finishes the batch in flight at this index.
    Finish(prop::sample::Index),
    /// Loses these partitions; another member finishes so many offsets before they come back.
    Forget(Vec<i32>, i64),
    /// Commits.
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

/// The first record from `offset` on in a log with holes, and its timestamp: some have none.
fn next_record(number: i32, offset: i64) -> Record {
    let hole = |offset: &i64| (offset * 5 + i64::from(number)) % 7 >= 5 || offset / 10 % 4 == 3;
    let offset = (offset..).find(|offset| !hole(offset)).unwrap_or(offset);
    // Not in the order of offsets: producers set it.
    let timestamp = if offset % 3 == 0 { None } else { Timestamp::from_micros(offset * 37 % 100) };
    Record { timestamp: timestamp.map(Into::into), ..record(number, offset) }
}

/// One assignment of a partition, record by record.
struct Assignment {
    id: u32,
    /// Where reading began: what the group had committed.
    start: i64,
    records: Vec<Record>,
    /// How many of `records` were put into flight.
    started: usize,
    done: BTreeSet<i64>,
    /// The position as last taken.
    taken: i64,
}

impl Assignment {
    fn next_read(&self) -> i64 {
        self.records.last().map_or(self.start, |record| record.offset + 1)
    }

    /// After the last record of those that are done without a gap.
    fn position(&self) -> i64 {
        let is_done = |record: &&Record| self.done.contains(&record.offset);
        self.records.iter().take_while(is_done).last().map_or(self.start, |record| record.offset + 1)
    }
}

/// Records: partition, assignment, offset.
type Records = Vec<(i32, u32, i64)>;

/// All that happened, told record by record.
#[derive(Default)]
struct Model {
    assignments: u32,
    ours: BTreeMap<i32, Assignment>,
    /// Read and not in flight, also of before a position was reset.
    batch: Records,
    in_flight: Vec<(Ticket, Records)>,
    /// Offsets that somebody finished.
    finished: BTreeSet<(i32, i64)>,
    /// What the group has committed.
    committed: BTreeMap<i32, i64>,
}

impl Model {
    fn committed(&self, number: i32) -> i64 {
        self.committed.get(&number).copied().unwrap_or(0)
    }

    /// Reads `record`, which begins a new assignment unless it follows what was read of this one.
    fn read(&mut self, tracker: &mut OffsetTracker, record: Record) {
        tracker.read(&record);
        let number = record.partition.number;
        if self.ours.get(&number).is_some_and(|ours| record.offset < ours.next_read()) {
            self.ours.remove(&number);
        }
        let id = self.assignments;
        let ours = self.ours.entry(number).or_insert_with(|| Assignment {
            id,
            start: record.offset,
            records: Vec::new(),
            started: 0,
            done: BTreeSet::new(),
            taken: record.offset,
        });
        self.assignments += 1;
        self.batch.push((number, ours.id, record.offset));
        ours.records.push(record);
    }

    /// Puts everything read into flight; the spans are to be those of the records.
    fn start(&mut self, tracker: &mut OffsetTracker) -> Result<(), TestCaseError> {
        let ticket = tracker.start();
        let mut spans = Vec::new();
        for (&number, ours) in &mut self.ours {
            let from = ours.started.checked_sub(1).map_or(ours.start, |last| ours.records[last].offset + 1);
            let new = &ours.records[ours.started..];
            if let Some(last) = new.last() {
                spans.push(Span {
                    partition: partition(number),
                    from,
                    to: last.offset + 1,
                    records: new.len() as u64,
                    last_timestamp: new.iter().rev().find_map(Record::instant),
                });
            }
            ours.started = ours.records.len();
        }
        prop_assert_eq!(ticket.spans(), spans);
        self.in_flight.push((ticket, std::mem::take(&mut self.batch)));
        Ok(())
    }

    fn finish(&mut self, tracker: &mut OffsetTracker, at: usize) {
        let (ticket, records) = self.in_flight.remove(at);
        tracker.finish(ticket);
        for (number, assignment, offset) in records {
            self.finished.insert((number, offset));
            if let Some(ours) = self.ours.get_mut(&number).filter(|ours| ours.id == assignment) {
                ours.done.insert(offset);
            }
        }
    }

    fn forget(&mut self, tracker: &mut OffsetTracker, lost: &[i32], elsewhere: i64) {
        tracker.forget(&lost.iter().copied().map(partition).collect::<Vec<_>>());
        self.batch.retain(|(number, ..)| !lost.contains(number));
        for &number in lost {
            self.ours.remove(&number);
            let committed = self.committed(number);
            self.finished.extend((committed..committed + elsewhere).map(|offset| (number, offset)));
            self.committed.insert(number, committed + elsewhere);
        }
    }

    /// Commits what the tracker says, which is to be exactly what moved, and never to pass what nobody finished.
    fn take(&mut self, tracker: &mut OffsetTracker) -> Result<(), TestCaseError> {
        let mut moved = Vec::new();
        for (&number, ours) in &mut self.ours {
            let now = ours.position();
            if std::mem::replace(&mut ours.taken, now) != now {
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
            prop_assert_eq!(lost, None, "not finished, and {} of {} is committed", next_offset, number);
            self.committed.insert(number, next_offset);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The tracker against a model that remembers each record; once all are done, positions are at the end.
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
                    let next = model.ours.get(&number).map_or_else(|| model.committed(number), Assignment::next_read);
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
        for (&number, ours) in &model.ours {
            prop_assert_eq!(model.committed(number), ours.next_read(), "the end of {}", number);
        }
        prop_assert_eq!(tracker.take_positions(), []);
    }
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn partition(number: i32) -> PartitionId {
    PartitionId::new("events", number)
}

fn record(number: i32, offset: i64) -> Record {
    Record { partition: partition(number), offset, timestamp: None, key: None, value: None, headers: Vec::new() }
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
    Read(i32),
    Start,
    /// Finishes the batch in flight at this index, modulo their number.
    Finish(usize),
    Forget(i32),
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3).prop_map(Step::Read),
        3 => Just(Step::Start),
        3 => (0_usize..8).prop_map(Step::Finish),
        1 => (0..3).prop_map(Step::Forget),
        1 => Just(Step::Take),
    ]
}

/// What is known of one assignment of a partition: each offset read, and whether it is done.
type Model = BTreeMap<i32, (u32, Vec<bool>)>;

proptest! {
    /// The tracker against a model that remembers each record.
    #[test]
    fn a_position_never_passes_a_record_that_is_not_done(steps in prop::collection::vec(step(), 1..80)) {
        let mut tracker = OffsetTracker::default();
        let mut model = Model::new();
        let mut assignments = 0;
        let mut pending: Vec<(i32, u32, usize)> = Vec::new();
        let mut in_flight = Vec::new();
        let mut committed: BTreeMap<(i32, u32), usize> = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Take]) {
            match step {
                Step::Read(number) => {
                    let (assignment, records) = model.entry(number).or_insert_with(|| {
                        assignments += 1;
                        (assignments, Vec::new())
                    });
                    pending.push((number, *assignment, records.len()));
                    tracker.read(&record(number, records.len() as i64));
                    records.push(false);
                }
                Step::Start => in_flight.push((tracker.start(), std::mem::take(&mut pending))),
                Step::Finish(at) if !in_flight.is_empty() => {
                    let (ticket, records) = in_flight.remove(at % in_flight.len());
                    tracker.finish(ticket);
                    for (number, assignment, offset) in records {
                        if let Some((current, done)) = model.get_mut(&number)
                            && *current == assignment
                        {
                            done[offset] = true;
                        }
                    }
                }
                Step::Finish(_) => {}
                Step::Forget(number) => {
                    tracker.forget(&[partition(number)]);
                    model.remove(&number);
                    pending.retain(|(other, ..)| *other != number);
                }
                Step::Take => {
                    for position in tracker.take_positions() {
                        let number = position.partition.number;
                        let assignment = model.get(&number).map(|known| known.0);
                        prop_assert!(assignment.is_some(), "{position:?} of a forgotten partition");
                        committed.insert((number, assignment.unwrap_or(0)), position.next_offset as usize);
                    }
                    for (number, (assignment, done)) in &model {
                        let expected = done.iter().take_while(|done| **done).count();
                        let found = committed.get(&(*number, *assignment)).copied().unwrap_or(0);
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }
}

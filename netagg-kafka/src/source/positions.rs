//! The assigned partitions, and up to which offset each is processed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netagg_core::{PartitionId, Position};

/// The positions to commit. The reader offers them, and the polling thread sends them.
///
/// Only positions of the current assignment count. The reader learns of changes later than the thread, so it may offer a
/// position of an earlier assignment. Such a position could overwrite a newer commit of another member. It is recognized by
/// its epoch: each assignment has another epoch.
#[derive(Debug, Default)]
pub(super) struct Positions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    partitions: BTreeMap<PartitionId, Partition>,
}

#[derive(Debug)]
struct Partition {
    epoch: u64,
    next_offset: Option<i64>,
    sent: bool,
}

impl Positions {
    /// Adds assigned partitions. Returns the epoch of this assignment.
    pub(super) fn assign(&self, partitions: &[PartitionId]) -> u64 {
        let mut state = self.state();
        state.epoch += 1;
        let epoch = state.epoch;
        for partition in partitions {
            state.partitions.insert(partition.clone(), Partition { epoch, next_offset: None, sent: true });
        }
        epoch
    }

    /// Removes revoked partitions. Returns up to which position each was processed.
    pub(super) fn revoke(&self, partitions: &[PartitionId]) -> Vec<Position> {
        let mut state = self.state();
        let revoked = partitions.iter().filter_map(|partition| state.partitions.remove_entry(partition));
        revoked.filter_map(|(partition, known)| position(&partition, known.next_offset)).collect()
    }

    /// Notes that the partition, as assigned under `epoch`, is processed below the position.
    pub(super) fn offer(&self, position: &Position, epoch: u64) {
        if let Some(known) = self.state().partitions.get_mut(&position.partition)
            && known.epoch == epoch
            && known.next_offset != Some(position.next_offset)
        {
            known.next_offset = Some(position.next_offset);
            known.sent = false;
        }
    }

    /// The positions that have not been sent since they were noted.
    pub(super) fn take_unsent(&self) -> Vec<Position> {
        let mut state = self.state();
        let unsent = state.partitions.iter_mut().filter(|(_, known)| !known.sent);
        unsent
            .filter_map(|(partition, known)| {
                known.sent = true;
                position(partition, known.next_offset)
            })
            .collect()
    }

    /// Makes all positions unsent again, because commits in flight may have been lost.
    pub(super) fn send_again(&self) {
        self.state().partitions.values_mut().for_each(|known| known.sent = known.next_offset.is_none());
    }

    /// All positions.
    pub(super) fn all(&self) -> Vec<Position> {
        let state = self.state();
        state.partitions.iter().filter_map(|(partition, known)| position(partition, known.next_offset)).collect()
    }

    /// The partitions that are assigned.
    pub(super) fn assigned(&self) -> Vec<PartitionId> {
        self.state().partitions.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn position(partition: &PartitionId, next_offset: Option<i64>) -> Option<Position> {
    next_offset.map(|next_offset| Position { partition: partition.clone(), next_offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions<const N: usize>(numbers: [i32; N]) -> [PartitionId; N] {
        numbers.map(|number| PartitionId::new("topic", number))
    }

    fn at(number: i32, next_offset: i64) -> Position {
        Position { partition: PartitionId::new("topic", number), next_offset }
    }

    #[test]
    fn each_new_position_is_sent_once() {
        let positions = Positions::default();
        let epoch = positions.assign(&partitions([0, 1]));
        positions.offer(&at(0, 5), epoch);
        positions.offer(&at(0, 7), epoch);
        assert_eq!(positions.take_unsent(), [at(0, 7)]);
        positions.offer(&at(0, 7), epoch);
        assert_eq!(positions.take_unsent(), []);
        positions.send_again();
        assert_eq!(positions.take_unsent(), [at(0, 7)]);
        assert_eq!(positions.all(), [at(0, 7)]);
    }

    #[test]
    fn positions_of_another_assignment_are_ignored() {
        let positions = Positions::default();
        let first = positions.assign(&partitions([0, 1]));
        positions.offer(&at(0, 5), first);
        positions.offer(&at(2, 5), first);
        assert_eq!(positions.revoke(&partitions([0, 2])), [at(0, 5)]);
        positions.offer(&at(0, 6), first);
        let second = positions.assign(&partitions([0]));
        positions.offer(&at(0, 7), first);
        positions.offer(&at(1, 3), first);
        assert_eq!(positions.take_unsent(), [at(1, 3)]);
        positions.offer(&at(0, 8), second);
        assert_eq!(positions.take_unsent(), [at(0, 8)]);
    }
}

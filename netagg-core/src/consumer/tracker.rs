//! Up to where each partition is done, while batches finish in any order.

use std::collections::{BTreeMap, VecDeque};

use crate::record::{PartitionId, Position, Record, Span};

/// Follows records from being read over being in flight to being done.
///
/// Laws: a position never passes a record that isn't done; a partition that was forgotten is unknown, and what was in
/// flight for it then has no effect on a later assignment of the same partition.
#[derive(Debug, Default)]
pub(super) struct OffsetTracker {
    partitions: BTreeMap<PartitionId, Partition>,
    /// Tells assignments of one partition apart.
    next_epoch: u64,
}

#[derive(Debug)]
struct Partition {
    epoch: u64,
    /// Read and not yet in flight.
    pending: Option<Span>,
    /// The offset after the last one read.
    next_read: i64,
    /// In flight or done behind one that is in flight, in order.
    started: VecDeque<Started>,
    /// Everything below is done.
    done: i64,
    /// `done` as last taken for a commit; where reading began is the group's position already.
    taken: i64,
}

#[derive(Debug)]
struct Started {
    to: i64,
    done: bool,
}

/// A batch in flight.
#[derive(Debug)]
#[must_use]
pub(super) struct Ticket(Vec<(u64, Span)>);

impl Ticket {
    pub(super) fn spans(&self) -> Vec<Span> {
        self.0.iter().map(|(_, span)| span.clone()).collect()
    }
}

impl OffsetTracker {
    /// Notes that `record` was read for the next batch.
    pub(super) fn read(&mut self, record: &Record) {
        // A source that goes back without a rebalance (its position was reset) reads the partition again.
        if self.partitions.get(&record.partition).is_some_and(|known| record.offset < known.next_read) {
            self.partitions.remove(&record.partition);
        }
        // Offsets that hold no record belong to the record after them.
        let pending = self.extend(&record.partition, record.offset, record.offset + 1);
        pending.records += 1;
        pending.last_timestamp = record.instant().or(pending.last_timestamp);
    }

    /// Notes that the offsets of `span` were read and hold no record; the next batch covers them. Returns false if all
    /// of them were read before.
    pub(super) fn pass(&mut self, span: &Span) -> bool {
        let next_read = self.partitions.get(&span.partition).map_or(span.from, |known| known.next_read);
        if span.to <= next_read {
            return false;
        }
        self.extend(&span.partition, span.from, span.to);
        true
    }

    /// Extends the partition's part of the next batch up to `to`. Reading begins at `from` if the partition is unknown.
    fn extend(&mut self, id: &PartitionId, from: i64, to: i64) -> &mut Span {
        let next_epoch = &mut self.next_epoch;
        let partition = self.partitions.entry(id.clone()).or_insert_with(|| {
            *next_epoch += 1;
            Partition {
                epoch: *next_epoch,
                pending: None,
                next_read: from,
                started: VecDeque::new(),
                done: from,
                taken: from,
            }
        });
        let from = std::mem::replace(&mut partition.next_read, to);
        let pending = partition.pending.get_or_insert_with(|| Span {
            partition: id.clone(),
            from,
            to,
            records: 0,
            last_timestamp: None,
        });
        pending.to = to;
        pending
    }

    /// Whether something was read that is not in flight yet.
    pub(super) fn has_pending(&self) -> bool {
        self.partitions.values().any(|partition| partition.pending.is_some())
    }

    /// Puts everything read into flight, as one batch.
    pub(super) fn start(&mut self) -> Ticket {
        let started = self.partitions.values_mut().filter_map(|partition| {
            let span = partition.pending.take()?;
            partition.started.push_back(Started { to: span.to, done: false });
            Some((partition.epoch, span))
        });
        Ticket(started.collect())
    }

    /// Notes that a batch is durably done.
    pub(super) fn finish(&mut self, ticket: Ticket) {
        for (epoch, span) in ticket.0 {
            let Some(partition) = self.partitions.get_mut(&span.partition) else { continue };
            if partition.epoch != epoch {
                continue;
            }
            if let Some(started) = partition.started.iter_mut().find(|started| started.to == span.to) {
                started.done = true;
            }
            while let Some(first) = partition.started.pop_front_if(|first| first.done) {
                partition.done = first.to;
            }
        }
    }

    /// Forgets partitions that are no longer ours.
    pub(super) fn forget(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// The positions that moved since they were last taken.
    pub(super) fn take_positions(&mut self) -> Vec<Position> {
        let moved = self.partitions.iter_mut().filter(|(_, partition)| partition.taken != partition.done);
        moved
            .map(|(id, partition)| {
                partition.taken = partition.done;
                Position { partition: id.clone(), next_offset: partition.done }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;

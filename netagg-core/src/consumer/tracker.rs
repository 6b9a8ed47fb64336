//! Tracks up to which offset each partition is done, while batches finish in any order.

use std::collections::{BTreeMap, VecDeque};

use crate::record::{PartitionId, Position, Record, Span};

/// Tracks the offsets of each partition in three steps: read, in flight, done.
///
/// Two rules always hold:
///
/// - A position never passes a record that is not done.
/// - After a partition was forgotten, its batches in flight have no effect on a later assignment of the same partition.
#[derive(Debug, Default)]
pub(super) struct OffsetTracker {
    partitions: BTreeMap<PartitionId, Partition>,
    /// The epoch of the next assignment. It distinguishes several assignments of one partition.
    next_epoch: u64,
}

#[derive(Debug)]
struct Partition {
    epoch: u64,
    /// The offsets that are read and not in flight yet.
    pending: Option<Span>,
    /// The offset after the last read offset.
    next_read: i64,
    /// The batches in flight, and the done batches that follow a batch in flight, in order.
    started: VecDeque<Started>,
    /// All offsets below this offset are done.
    done: i64,
    /// The value of `done` at the last commit. It begins at the first read offset, which the group has already committed.
    taken: i64,
}

#[derive(Debug)]
struct Started {
    to: i64,
    done: bool,
}

/// A batch in flight: its spans, each with the epoch of its partition.
#[derive(Debug)]
#[must_use]
pub(super) struct Ticket(Vec<(u64, Span)>);

impl Ticket {
    pub(super) fn spans(&self) -> Vec<Span> {
        self.0.iter().map(|(_, span)| span.clone()).collect()
    }
}

impl OffsetTracker {
    /// Records that `record` was read for the next batch.
    pub(super) fn read(&mut self, record: &Record) {
        // The source went back without a rebalance, because its position was reset. So it reads the partition again.
        if self.partitions.get(&record.partition).is_some_and(|known| record.offset < known.next_read) {
            self.partitions.remove(&record.partition);
        }
        // Offsets without a record belong to the span of the next record.
        let pending = self.extend(&record.partition, record.offset, record.offset + 1);
        pending.records += 1;
        pending.last_timestamp = record.instant().or(pending.last_timestamp);
    }

    /// Records that the offsets of `span` were read and hold no record. The next batch covers them. Returns false if all of
    /// them were read before.
    pub(super) fn pass(&mut self, span: &Span) -> bool {
        let next_read = self.partitions.get(&span.partition).map_or(span.from, |known| known.next_read);
        if span.to <= next_read {
            return false;
        }
        self.extend(&span.partition, span.from, span.to);
        true
    }

    /// Extends the span of the partition in the next batch up to `to`. If the partition is unknown, reading begins at `from`.
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

    /// Whether there are offsets that are read and not in flight yet.
    pub(super) fn has_pending(&self) -> bool {
        self.partitions.values().any(|partition| partition.pending.is_some())
    }

    /// Puts all offsets that are read and not in flight yet into flight, as one batch.
    pub(super) fn start(&mut self) -> Ticket {
        let started = self.partitions.values_mut().filter_map(|partition| {
            let span = partition.pending.take()?;
            partition.started.push_back(Started { to: span.to, done: false });
            Some((partition.epoch, span))
        });
        Ticket(started.collect())
    }

    /// Records that a batch is durably done.
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

    /// Removes partitions that are no longer assigned to this consumer.
    pub(super) fn forget(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// Returns the positions that have moved since the last call.
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

//! Collects records and events that are read and not yet handed over.

use std::collections::VecDeque;

use netagg_core::{Error, PartitionId, Record, Span};

/// The maximum number of records that are handed over at once.
const CHUNK_RECORDS: usize = 500;
/// The maximum number of bytes of records that are handed over at once. The last record may exceed it.
const CHUNK_BYTES: usize = 1 << 20;

/// A message of the polling thread to the reader.
#[derive(Debug)]
pub(super) enum Delivery {
    Assigned {
        epoch: u64,
        partitions: Vec<PartitionId>,
    },
    Records(Vec<Record>),
    Vacant(Vec<Span>),
    Revoked(Vec<PartitionId>),
    /// The consumer has failed for good.
    Failed(Error),
}

/// The deliveries in order. The records of the last delivery are still being gathered.
#[derive(Debug, Default)]
pub(super) struct Chunker {
    ready: VecDeque<Delivery>,
    chunk: Vec<Record>,
    bytes: usize,
}

impl Chunker {
    /// Adds a record.
    pub(super) fn record(&mut self, record: Record) {
        self.bytes += record.size();
        self.chunk.push(record);
        if self.chunk.len() >= CHUNK_RECORDS || self.bytes >= CHUNK_BYTES {
            self.close_chunk();
        }
    }

    /// Makes the gathered records ready.
    pub(super) fn close_chunk(&mut self) {
        if !self.chunk.is_empty() {
            let next = Vec::with_capacity(self.chunk.len());
            self.ready.push_back(Delivery::Records(std::mem::replace(&mut self.chunk, next)));
            self.bytes = 0;
        }
    }

    /// Adds a delivery without records. After a revocation, no record of the revoked partitions is handed over.
    pub(super) fn event(&mut self, event: Delivery) {
        self.close_chunk();
        if let Delivery::Revoked(partitions) = &event {
            self.ready.retain_mut(|delivery| match delivery {
                Delivery::Records(records) => {
                    records.retain(|record| !partitions.contains(&record.partition));
                    !records.is_empty()
                }
                Delivery::Vacant(spans) => {
                    spans.retain(|span| !partitions.contains(&span.partition));
                    !spans.is_empty()
                }
                _ => true,
            });
        }
        self.ready.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Delivery> {
        self.ready.pop_front()
    }

    /// Puts back the delivery that [`pop`](Self::pop) returned.
    pub(super) fn put_back(&mut self, delivery: Delivery) {
        self.ready.push_front(delivery);
    }

    /// Whether records are being gathered and no delivery is ready.
    pub(super) fn is_gathering(&self) -> bool {
        self.ready.is_empty() && !self.chunk.is_empty()
    }

    /// Whether no delivery is ready and no record is being gathered.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.chunk.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64, bytes: usize) -> Record {
        Record {
            partition: PartitionId::new("topic", partition),
            offset,
            timestamp: None,
            key: None,
            value: Some(vec![b'x'; bytes].into()),
            headers: Vec::new(),
        }
    }

    fn vacant(partition: i32, from: i64, to: i64) -> Span {
        Span { partition: PartitionId::new("topic", partition), from, to, records: 0, last_timestamp: None }
    }

    /// Deliveries as text: `+` for assigned, `-` for revoked, otherwise the records or the offsets without a record.
    fn drain(chunker: &mut Chunker) -> Vec<String> {
        let text = |delivery| match delivery {
            Delivery::Assigned { partitions, .. } => format!("+{}", partitions.len()),
            Delivery::Revoked(partitions) => format!("-{}", partitions.len()),
            Delivery::Failed(error) => error.to_string(),
            Delivery::Vacant(spans) => {
                let spans: Vec<_> = spans.iter().map(|span| format!("{}..{}", span.from, span.to)).collect();
                spans.join(" ")
            }
            Delivery::Records(records) => {
                let positions: Vec<_> =
                    records.iter().map(|r| format!("{}@{}", r.partition.number, r.offset)).collect();
                positions.join(" ")
            }
        };
        std::iter::from_fn(|| chunker.pop()).map(text).collect()
    }

    #[test]
    fn chunks_are_bounded_by_count_and_bytes() {
        let mut chunker = Chunker::default();
        for offset in 0..501 {
            chunker.record(record(0, offset, 10));
        }
        assert!(matches!(chunker.pop(), Some(Delivery::Records(records)) if records.len() == CHUNK_RECORDS));
        assert!(chunker.pop().is_none() && !chunker.is_empty());
        chunker.record(record(0, 501, CHUNK_BYTES));
        assert_eq!(drain(&mut chunker), ["0@500 0@501"]);
        assert!(chunker.is_empty());
    }

    #[test]
    fn events_keep_their_order_among_records() {
        let mut chunker = Chunker::default();
        let partitions = || vec![PartitionId::new("topic", 1)];
        chunker.record(record(0, 5, 1));
        chunker.event(Delivery::Assigned { epoch: 1, partitions: partitions() });
        chunker.record(record(1, 7, 1));
        chunker.record(record(0, 6, 1));
        chunker.event(Delivery::Vacant([0, 1].map(|partition| vacant(partition, 8, 9)).to_vec()));
        chunker.event(Delivery::Vacant(vec![vacant(1, 9, 11)]));
        chunker.record(record(1, 8, 1));
        chunker.event(Delivery::Revoked(partitions()));
        chunker.record(record(0, 7, 1));
        chunker.close_chunk();
        assert_eq!(drain(&mut chunker), ["0@5", "+1", "0@6", "8..9", "-1", "0@7"]);
    }
}

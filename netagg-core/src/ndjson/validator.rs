//! Validates lines with the same rules as the services.

use bytes::Bytes;

use super::chunk::{Chunk, LineEvent, RejectedLine, Rejection};
use super::lines::Line;
use crate::event::EventLimits;
use crate::ports::{Clock, SystemClock};
use crate::record::{PartitionId, Record};

/// Validates lines as if they were records that a service receives now.
#[derive(Debug)]
pub(super) struct LineValidator {
    limits: EventLimits,
    partition: PartitionId,
}

impl LineValidator {
    pub(super) fn new(limits: EventLimits) -> Self {
        Self { limits, partition: PartitionId::new("input", 0) }
    }

    /// Validates the line `number` and adds it to `chunk`, unless the line is blank.
    pub(super) fn validate(&self, number: u64, line: Line, chunk: &mut Chunk) {
        chunk.next_line = number + 1;
        let line = match line {
            Line::TooLong => {
                chunk.rejected.push(RejectedLine { number, reason: Rejection::TooLong });
                return;
            }
            Line::Text(line) if line.trim_ascii().is_empty() => return,
            Line::Text(line) => Bytes::from(line),
        };
        chunk.bytes += line.len();
        let record = Record::new(self.partition.clone(), number as i64, line.clone()).with_timestamp(SystemClock.now());
        match self.limits.admit(&record) {
            Ok(event) => chunk.events.push(LineEvent { event, line }),
            Err(reason) => chunk.rejected.push(RejectedLine { number, reason: Rejection::Invalid(reason) }),
        }
    }
}

//! How old an event may be. Every reader decides alike, at any time.

use std::time::Duration;

use super::{Event, InvalidEvent, InvalidKind};
use crate::record::{Record, RecordTimestamp};

const DAY: Duration = Duration::from_secs(86_400);

/// How far from its record's timestamp an event may have started.
///
/// The timestamp is the record's, not the clock's, so that both services, a replay and a rebuild judge alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct EventLimits {
    /// The longest time before the record's timestamp. Default: 1,825 days.
    pub max_age: Duration,
    /// The longest time after the record's timestamp. Default: 1 day.
    pub max_future: Duration,
}

impl Default for EventLimits {
    /// Five years back, one day ahead.
    fn default() -> Self {
        Self { max_age: 1_825 * DAY, max_future: DAY }
    }
}

impl EventLimits {
    /// The event in `record`, if it holds a valid one in JSON within these limits.
    ///
    /// # Errors
    /// The reason to dead-letter the record.
    pub fn admit(&self, record: &Record) -> Result<Event, InvalidEvent> {
        let event = Event::decode_record(record)?;
        self.check(&event, record)?;
        Ok(event)
    }

    /// Checks that `event`, which `record` holds, started within these limits.
    ///
    /// # Errors
    /// The reason to dead-letter the record.
    pub fn check(&self, event: &Event, record: &Record) -> Result<(), InvalidEvent> {
        let received = match record.timestamp {
            Some(RecordTimestamp::Instant(received)) => received,
            Some(RecordTimestamp::OutOfRange(millis)) => {
                return Err(InvalidEvent::message(
                    InvalidKind::TimestampOutOfRange,
                    format!("a record with the timestamp {millis}"),
                    "a record whose timestamp is in milliseconds since 1970, of the years 0001 to 9999",
                ));
            }
            None => {
                return Err(InvalidEvent::message(
                    InvalidKind::NoTimestamp,
                    "a record without a timestamp",
                    "a record with a timestamp",
                ));
            }
        };
        let started_at = event.fields().started_at;
        let (earliest, latest) = (received.saturating_sub(self.max_age), received.saturating_add(self.max_future));
        let kind = if started_at < earliest {
            InvalidKind::TooOld
        } else if started_at > latest {
            InvalidKind::TooFarInFuture
        } else {
            return Ok(());
        };
        Err(InvalidEvent::field(
            kind,
            "started_at",
            started_at.to_string(),
            format!("a time from {earliest} to {latest} (the record's timestamp is {received})"),
        ))
    }
}

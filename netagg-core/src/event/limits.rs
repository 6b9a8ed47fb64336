//! The age limits of events. Every service gets the same result for a record, at any time.

use std::time::Duration;

use super::{Event, InvalidEvent, InvalidKind};
use crate::record::{Record, RecordTimestamp};

const DAY: Duration = Duration::from_secs(86_400);

/// The limits of the time between the start of an event and the timestamp of its record.
///
/// The limits refer to the timestamp of the record and not to the current time. So both services, a replay and a rebuild accept
/// the same events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct EventLimits {
    /// The longest time that an event may start before the timestamp of its record. Default: 1,825 days.
    pub max_age: Duration,
    /// The longest time that an event may start after the timestamp of its record. Default: 1 day.
    pub max_future: Duration,
}

impl Default for EventLimits {
    /// 1,825 days (5 years) before, and 1 day after the timestamp.
    fn default() -> Self {
        Self { max_age: 1_825 * DAY, max_future: DAY }
    }
}

impl EventLimits {
    /// The event in the JSON of `record`, if the event is valid and within these limits.
    ///
    /// # Errors
    /// The reason why the record becomes a dead letter.
    pub fn admit(&self, record: &Record) -> Result<Event, InvalidEvent> {
        let event = Event::decode_record(record)?;
        self.check(&event, record)?;
        Ok(event)
    }

    /// Checks that `event`, decoded from `record`, started within these limits.
    ///
    /// # Errors
    /// The reason why the record becomes a dead letter.
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

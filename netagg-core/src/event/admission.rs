//! Whether a record holds an event that netagg takes: the verdict every reader reaches alike, at any time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Event, InvalidEvent, InvalidKind};
use crate::record::{Record, RecordTimestamp};
use crate::time::Month;

const DAY: Duration = Duration::from_secs(86_400);

/// How far from its record's timestamp an event may have started.
///
/// The timestamp is the record's, not the clock's, so that both services, a replay and a rebuild judge alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct EventLimits {
    /// The longest time before the record's timestamp.
    pub max_age: Duration,
    /// The longest time after the record's timestamp.
    pub max_future: Duration,
}

impl Default for EventLimits {
    /// Five years back, one day ahead.
    fn default() -> Self {
        Self { max_age: 1_825 * DAY, max_future: DAY }
    }
}

impl EventLimits {
    /// The event in `record`, if it holds a valid one within these limits.
    ///
    /// # Errors
    /// The reason to dead-letter the record.
    pub fn admit(&self, record: &Record) -> Result<Event, InvalidEvent> {
        const ACCEPTED: &str = "a JSON object";
        let value = match record.value.as_deref() {
            None => return Err(InvalidEvent::message(InvalidKind::NullValue, "no value", ACCEPTED)),
            Some([]) => return Err(InvalidEvent::message(InvalidKind::EmptyValue, "an empty value", ACCEPTED)),
            Some(value) => value,
        };
        let event = Event::decode(value)?;
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
            return Ok(event);
        };
        Err(InvalidEvent::field(
            kind,
            "started_at",
            started_at.to_string(),
            format!("a time from {earliest} to {latest} (the record's timestamp is {received})"),
        ))
    }
}

/// The verdict of a service: the limits, and the months that its store said are dropped.
///
/// A store knows first, and says so when an event of such a month reaches it; then the service knows, too.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: EventLimits,
    dropped_through: Mutex<Option<Month>>,
}

impl Admission {
    pub(crate) fn new(limits: EventLimits) -> Self {
        Self { limits, dropped_through: Mutex::default() }
    }

    /// The event in `record`, if it is one to take.
    pub(crate) fn admit(&self, record: &Record) -> Result<Event, InvalidEvent> {
        let event = self.limits.admit(record)?;
        let dropped_through = *self.dropped_through.lock().unwrap_or_else(PoisonError::into_inner);
        match dropped_through {
            Some(dropped) if event.day().month() <= dropped => Err(InvalidEvent::field(
                InvalidKind::MonthDropped,
                "started_at",
                event.fields().started_at.to_string(),
                format!("a time after the month {dropped}, up to which retention has dropped the events"),
            )),
            _ => Ok(event),
        }
    }

    /// Takes no event of `month` or of any month before it from now on.
    pub(crate) fn months_are_dropped(&self, through: Month) {
        let mut known = self.dropped_through.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(Some(through));
    }
}

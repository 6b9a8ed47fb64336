//! Decides whether a record holds an event that a service accepts.

use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Event, EventLimits, InvalidEvent, InvalidKind};
use crate::ports::EventDecoder;
use crate::record::Record;
use crate::time::Month;

/// The decoder, the limits, and the months that the store has reported as dropped.
///
/// The store is the first to know that retention has dropped a month. It reports the month when it gets an event of this month.
/// After the report, the validator rejects such events.
#[derive(Debug)]
pub(crate) struct Validator {
    decoder: Arc<dyn EventDecoder>,
    limits: EventLimits,
    dropped_through: Mutex<Option<Month>>,
}

impl Validator {
    pub(crate) fn new(decoder: Arc<dyn EventDecoder>, limits: EventLimits) -> Self {
        Self { decoder, limits, dropped_through: Mutex::default() }
    }

    /// The event in `record`, if the service accepts it.
    pub(crate) fn validate(&self, record: &Record) -> Result<Event, InvalidEvent> {
        let event = self.decoder.decode(record)?;
        self.limits.check(&event, record)?;
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

    /// From now on, rejects events of the month `through` and of all earlier months.
    pub(crate) fn months_are_dropped(&self, through: Month) {
        let mut known = self.dropped_through.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(Some(through));
    }
}

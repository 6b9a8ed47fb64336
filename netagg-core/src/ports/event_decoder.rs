//! How records become events.

use std::fmt::Debug;

use crate::event::{Event, InvalidEvent};
use crate::record::Record;

/// Reads the event that a record holds: JSON ([`JsonDecoder`](crate::JsonDecoder)), or a format of your own.
///
/// [`Event::new`] checks the fields of an event that a decoder has read. The service checks
/// [`EventLimits`](crate::EventLimits) afterwards, by the record's timestamp.
///
/// The `event_id` is a UUID that the record determines. A format with numbers can use
/// [`Uuid::from_u128`](uuid::Uuid::from_u128). Never make a random one: each delivery of the record would be another event.
///
/// **The result must depend on the record alone.** The ingestor and the aggregator decode each record independently, again
/// after a restart. If they read different events from one record, totals differ from the stored events.
pub trait EventDecoder: Debug + Send + Sync {
    /// The event in `record`. A record without a value (a tombstone) also comes here.
    ///
    /// It runs on the runtime's threads, once for each record, so it must not block. A panic ends the service.
    ///
    /// # Errors
    /// Why the record holds no valid event: [`InvalidEvent::custom`] for a rule of the format. The ingestor keeps the
    /// record among the dead letters with its original bytes and this reason.
    fn decode(&self, record: &Record) -> Result<Event, InvalidEvent>;
}

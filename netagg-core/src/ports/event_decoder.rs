//! The decoder that reads an event from a record.

use std::fmt::Debug;

use crate::event::{Event, InvalidEvent};
use crate::record::Record;

/// Reads the event that a record holds. [`JsonDecoder`](crate::JsonDecoder) reads JSON; your own decoder reads another format.
///
/// [`Event::new`] checks the fields of an event that a decoder has read. After the decoder, the service checks
/// [`EventLimits`](crate::EventLimits) against the timestamp of the record.
///
/// The `event_id` is a UUID that the record determines. A format with numbers can use
/// [`Uuid::from_u128`](uuid::Uuid::from_u128). Never make a random UUID: each delivery of the record would be another event.
///
/// **The result must depend on the record alone.** The ingestor and the aggregator decode each record independently, and decode
/// it again after a restart. If they read different events from one record, totals differ from the stored events.
pub trait EventDecoder: Debug + Send + Sync {
    /// Returns the event in `record`. The service also calls it for a record without a value (a tombstone).
    ///
    /// The call runs on the threads of the async runtime, once for each record, so it must not block. A panic ends the service.
    ///
    /// # Errors
    /// The reason why the record holds no valid event. Use [`InvalidEvent::custom`] for a rule of the format. The ingestor
    /// keeps the record among the dead letters, with its original bytes and this reason.
    fn decode(&self, record: &Record) -> Result<Event, InvalidEvent>;
}

//! The decoder of events in JSON.

use crate::event::{Event, InvalidEvent};
use crate::ports::EventDecoder;
use crate::record::Record;

/// Decodes records whose value is one JSON object that [`Event::decode`] accepts. Services use this decoder unless you set
/// another decoder.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct JsonDecoder;

impl JsonDecoder {
    /// A decoder. It has no settings.
    pub const fn new() -> Self {
        Self
    }
}

impl EventDecoder for JsonDecoder {
    fn decode(&self, record: &Record) -> Result<Event, InvalidEvent> {
        Event::decode_record(record)
    }
}

//! The usage event: its field types, which cannot hold an invalid value, its decoder and its identity.

mod decode;
mod event_type;
mod identity;
mod invalid;
mod json_text;
mod limits;
mod meta;
mod text;
mod usage_event;

pub use event_type::{EventType, UnknownEventType};
pub use identity::{ContentHash, EventKey, IdentifiedEvent, Identity};
pub use invalid::{InvalidEvent, InvalidKind};
pub use json_text::MAX_DEPTH;
pub use limits::EventLimits;
pub use meta::Meta;
pub use text::{BoundedText, InvalidText, SourceId, UserId};
pub use usage_event::{Event, EventFields, MAX_BYTES, MAX_DURATION_SEC};

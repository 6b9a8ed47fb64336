//! Positions and times as text.

use netagg_core::{Place, Timestamp};

/// `partition:offset`.
pub(super) fn show_place(place: &Place) -> String {
    format!("{}:{}", place.partition.number, place.offset)
}

/// The time, or `-`.
pub(super) fn show_time(time: Option<Timestamp>) -> String {
    time.map_or("-".to_owned(), |time| time.to_string())
}

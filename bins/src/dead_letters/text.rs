//! Dead letters, positions and times as text.

use netagg_core::{RecordPosition, Timestamp};
use serde::Serialize;

use crate::Failure;
use crate::process::outln;
use crate::process::terminal_escape::json_line;

pub(super) fn print_json(dead_letter: &impl Serialize) -> Result<(), Failure> {
    let line = json_line(dead_letter).map_err(|error| Failure::Failed(error.into()))?;
    outln!("{line}");
    Ok(())
}

/// `partition:offset`.
pub(super) fn show_position(position: &RecordPosition) -> String {
    format!("{}:{}", position.partition.number, position.offset)
}

/// The time, or `-`.
pub(super) fn show_time(time: Option<Timestamp>) -> String {
    time.map_or("-".to_owned(), |time| time.to_string())
}

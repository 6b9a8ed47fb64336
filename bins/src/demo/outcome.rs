//! The figures of a demonstration, from its input to its report.

use std::sync::Arc;

use netagg_core::load::EventModel;

/// The content of the log.
#[derive(Debug)]
pub(super) struct Published {
    /// All messages.
    pub(super) records: u64,
    /// Distinct events.
    pub(super) events: u64,
    /// Valid messages that repeat an event.
    pub(super) duplicates: u64,
    /// Messages without a valid event.
    pub(super) invalid: u64,
    /// Lines of a given file without a valid event. They are not published.
    pub(super) left_out: u64,
    /// The model of the events, if they are generated.
    pub(super) model: Option<Arc<EventModel>>,
}

/// The result of the verification.
#[derive(Debug)]
pub(super) struct Verification {
    /// In words; empty if everything is right.
    pub(super) problems: Vec<String>,
}

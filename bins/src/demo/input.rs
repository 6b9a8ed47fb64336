//! Publishes the events of a file to the in-memory log of the demonstration.

use std::collections::HashSet;

use indicatif::ProgressBar;
use netagg_core::EventLimits;
use netagg_core::load::Published;
use netagg_core::memory::MemoryLog;
use netagg_core::ports::EventPublisher;

use crate::Failure;
use crate::input::Input;
use crate::rejected_lines::RejectedLines;

/// Publishes each valid line of `input` unchanged. Prints the other lines to stderr, and returns their number.
pub(super) async fn publish(input: &Input, log: &MemoryLog) -> Result<(Published, u64), Failure> {
    let bar = ProgressBar::hidden();
    let mut rejected = RejectedLines::new(input.name());
    let mut lines = input.clone().read(EventLimits::default(), 1, bar.clone(), "netagg demo --input -");
    let mut seen = HashSet::new();
    let mut records = 0;
    while let Some(chunk) = lines.next().await? {
        rejected.note(&chunk.rejected, &bar);
        records += chunk.events.len() as u64;
        seen.extend(chunk.events.iter().map(|line| line.event.key()));
        log.publish(chunk.events.into_iter().map(|line| line.into_record()).collect()).await?;
    }
    let events = seen.len() as u64;
    let published = Published { records, events, duplicates: records - events, invalid: 0, model: None };
    Ok((published, rejected.finish()))
}

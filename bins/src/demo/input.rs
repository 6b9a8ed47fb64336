//! Given events, into the demonstration's log.

use std::collections::HashSet;

use indicatif::ProgressBar;
use netagg_core::EventLimits;
use netagg_core::memory::MemoryLog;
use netagg_core::ports::EventPublisher;

use super::outcome::Published;
use crate::Failure;
use crate::lines::{self, Input, LeftOut};

/// Publishes each valid line of `input` as it stands; names the others on stderr.
pub(super) async fn publish(input: &Input, log: &MemoryLog) -> Result<Published, Failure> {
    let bar = ProgressBar::hidden();
    let mut left_out = LeftOut::new(input.name());
    let mut chunks = lines::read(input.clone(), 1, EventLimits::default(), bar.clone(), "netagg demo --input -");
    let mut seen = HashSet::new();
    let mut records = 0;
    while let Some(chunk) = chunks.next().await? {
        left_out.note(&chunk.invalid, &bar);
        records += chunk.events.len() as u64;
        seen.extend(chunk.events.iter().map(|given| given.event.key()));
        log.publish(chunk.events.into_iter().map(|given| given.into_record()).collect()).await?;
    }
    let events = seen.len() as u64;
    let left_out = left_out.finish();
    Ok(Published { records, events, duplicates: records - events, invalid: 0, left_out, model: None })
}

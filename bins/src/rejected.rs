//! Tells a person which lines of an input were left out.

use std::collections::BTreeMap;

use indicatif::ProgressBar;
use netagg_core::ndjson::RejectedLine;

use crate::process::noteln;
use crate::process::terminal_escape::printable;

/// Lines that are named; of more, there is a count by kind in the end.
const NAMED: u64 = 20;

/// The lines of one input that hold no event.
#[derive(Debug)]
pub(crate) struct RejectedLines {
    name: String,
    count: u64,
    kinds: BTreeMap<&'static str, u64>,
}

impl RejectedLines {
    /// None yet, of the input called `name`.
    pub(crate) fn new(name: String) -> Self {
        Self { name, count: 0, kinds: BTreeMap::new() }
    }

    /// Notes `lines`, and names the first of them on stderr, above `bar`.
    pub(crate) fn note(&mut self, lines: &[RejectedLine], bar: &ProgressBar) {
        for RejectedLine { number, reason, .. } in lines {
            self.count += 1;
            *self.kinds.entry(reason.kind()).or_default() += 1;
            if self.count <= NAMED {
                let (kind, reason) = (reason.kind(), printable(reason.to_string().as_bytes()));
                bar.suspend(|| noteln!("{}:{number}: left out: {kind}: {reason}", self.name));
            }
        }
    }

    /// Tells of those that were not named, and how many there were in all.
    pub(crate) fn finish(self) -> u64 {
        if self.count > NAMED {
            let kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            let more = self.count - NAMED;
            noteln!("{}: and {more} more; of all {}: {}", self.name, self.count, kinds.join(", "));
        }
        self.count
    }
}

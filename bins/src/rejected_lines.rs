//! Prints the lines of an input that were left out.

use std::collections::BTreeMap;

use indicatif::ProgressBar;
use netagg_core::ndjson::RejectedLine;

use crate::process::noteln;
use crate::process::terminal_escape::printable;

/// The number of lines that are printed one by one. The other lines are counted by kind at the end.
const NAMED: u64 = 20;

/// The lines of one input that hold no event.
#[derive(Debug)]
pub(crate) struct RejectedLines {
    name: String,
    count: u64,
    kinds: BTreeMap<&'static str, u64>,
}

impl RejectedLines {
    /// No lines yet, of the input called `name`.
    pub(crate) fn new(name: String) -> Self {
        Self { name, count: 0, kinds: BTreeMap::new() }
    }

    /// Counts `lines`, and prints the first lines of the input to stderr, above `bar`.
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

    /// Prints the counts if not all lines were printed one by one. Returns the number of all lines.
    pub(crate) fn finish(self) -> u64 {
        if self.count > NAMED {
            let kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            let more = self.count - NAMED;
            noteln!("{}: {more} more lines left out; {} in total: {}", self.name, self.count, kinds.join(", "));
        }
        self.count
    }
}

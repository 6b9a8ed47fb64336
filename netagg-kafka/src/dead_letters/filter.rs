//! The filter that selects dead letters.

use netagg_core::Timestamp;

use super::dlq_record::{DlqKind, DlqRecord};

/// Selects dead letters. A dead letter must meet every condition. The default selects all dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DlqFilter {
    /// Dead letters of this kind.
    pub kind: Option<DlqKind>,
    /// Dead letters of records from this partition of their source topic.
    pub partition: Option<i32>,
    /// Dead letters that were written at this time or later.
    pub since: Option<Timestamp>,
    /// Dead letters that were written before this time.
    pub until: Option<Timestamp>,
}

impl DlqFilter {
    /// Whether the filter selects `dead_letter`. [`since`](Self::since) is not checked, because the reader starts there.
    pub(super) fn selects(&self, dead_letter: &DlqRecord) -> bool {
        let partition = dead_letter.origin.as_ref().map(|origin| origin.source.partition.number);
        self.kind.is_none_or(|kind| kind == dead_letter.kind())
            && self.partition.is_none_or(|wanted| Some(wanted) == partition)
            && self.until.is_none_or(|until| dead_letter.record.instant().is_some_and(|at| at < until))
    }
}

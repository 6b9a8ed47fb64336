//! Which dead letters a reader is interested in.

use netagg_core::Timestamp;

use super::stored_letter::{LetterKind, StoredLetter};

/// Which letters; a letter has to meet every condition. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Letters of this kind.
    pub kind: Option<LetterKind>,
    /// Letters of records from this partition of their source topic.
    pub partition: Option<i32>,
    /// Letters that were written at this time or later.
    pub since: Option<Timestamp>,
    /// Letters that were written before this time.
    pub until: Option<Timestamp>,
}

impl LetterFilter {
    /// Whether the filter selects `letter`. [`since`](Self::since) is not checked: the reader starts there.
    pub(super) fn selects(&self, letter: &StoredLetter) -> bool {
        let partition = letter.origin.as_ref().map(|origin| origin.source.partition.number);
        self.kind.is_none_or(|kind| kind == letter.kind())
            && self.partition.is_none_or(|wanted| Some(wanted) == partition)
            && self.until.is_none_or(|until| letter.record.instant().is_some_and(|at| at < until))
    }
}

//! The state that handlers share.

use axum::extract::FromRef;

use super::conditional::Json;
use crate::answers::Answers;
use crate::kept::Kept;

/// Everybody's totals, by the query as it was written.
pub(super) type KeptTotals = Kept<Box<str>, Json>;

/// The state that handlers share.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) answers: Answers,
    pub(super) totals: KeptTotals,
}

impl FromRef<Api> for Answers {
    fn from_ref(api: &Api) -> Self {
        api.answers.clone()
    }
}

impl FromRef<Api> for KeptTotals {
    fn from_ref(api: &Api) -> Self {
        api.totals.clone()
    }
}

//! The state that handlers share.

use axum::extract::FromRef;

use super::conditional::Json;
use crate::answers::Answers;
use crate::response_cache::ResponseCache;

/// Everybody's totals, by the query as it was written.
pub(super) type TotalsCache = ResponseCache<Box<str>, Json>;

/// The state that handlers share.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) answers: Answers,
    pub(super) totals: TotalsCache,
}

impl FromRef<Api> for Answers {
    fn from_ref(api: &Api) -> Self {
        api.answers.clone()
    }
}

impl FromRef<Api> for TotalsCache {
    fn from_ref(api: &Api) -> Self {
        api.totals.clone()
    }
}

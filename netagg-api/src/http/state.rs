//! The state that all request handlers share.

use axum::extract::FromRef;

use super::etag::Tagged;
use crate::handlers::Handlers;
use crate::response_cache::ResponseCache;

/// The cached totals of all users, by the text of the query. The key of HTML has a prefix.
pub(super) type TotalsCache = ResponseCache<Box<str>, Tagged>;

/// The state that all request handlers share.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) handlers: Handlers,
    pub(super) totals: TotalsCache,
}

impl FromRef<Api> for Handlers {
    fn from_ref(api: &Api) -> Self {
        api.handlers.clone()
    }
}

impl FromRef<Api> for TotalsCache {
    fn from_ref(api: &Api) -> Self {
        api.totals.clone()
    }
}

//! The port by which a load test checks how often an event is stored.

use netagg_core::async_trait::async_trait;
use netagg_core::load::StoredCopies;
use netagg_core::{Error, Event};

use super::event_store::PgEventStore;

#[async_trait]
impl StoredCopies for PgEventStore {
    async fn count_copies(&self, events: &[Event]) -> Result<Vec<u64>, Error> {
        Self::count_copies(self, events).await
    }
}

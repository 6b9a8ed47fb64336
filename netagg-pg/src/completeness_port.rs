//! The port [`CompletenessStore`] over the table `completeness`.

use async_trait::async_trait;
use netagg_core::ports::CompletenessStore;
use netagg_core::{Error, Position, Timestamp};

use crate::postgres::Postgres;

#[async_trait]
impl CompletenessStore for Postgres {
    async fn note_complete(
        &self,
        service: &str,
        topic: &str,
        through: Timestamp,
        committed: &[Position],
    ) -> Result<bool, Error> {
        Self::note_complete(self, service, topic, through, committed).await
    }
}

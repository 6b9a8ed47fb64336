//! The port [`GroupOffsets`] over the administration of topics.

use async_trait::async_trait;
use netagg_core::Error;
use netagg_core::ports::{GroupOffsets, PartitionLag};

use crate::topics::KafkaTopics;

#[async_trait]
impl GroupOffsets for KafkaTopics {
    async fn lag(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        Self::lag(self, group, topic).await
    }

    async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        Self::lag_in_offsets(self, group, topic).await
    }

    async fn members(&self, group: &str) -> Result<usize, Error> {
        Self::members(self, group).await
    }
}

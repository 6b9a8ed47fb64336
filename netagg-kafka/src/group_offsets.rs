//! The ports [`GroupOffsets`] and [`GroupAdmin`], by [`KafkaTopics`].

use async_trait::async_trait;
use netagg_core::Error;
use netagg_core::ports::{GroupAdmin, GroupOffsets, PartitionLag};

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

#[async_trait]
impl GroupAdmin for KafkaTopics {
    async fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Error> {
        self.commit_group(group, topic, offsets).await
    }

    async fn delete(&self, group: &str) -> Result<(), Error> {
        self.delete_group(group).await
    }
}

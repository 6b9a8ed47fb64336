//! The topic that a consumer reads as a member of a group.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

use super::context::Context;
use crate::KafkaConfig;

/// Everything that a consumer needs to become a member of a group.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) config: KafkaConfig,
    pub(super) group: String,
    pub(super) topic: String,
}

impl Subscription {
    /// A consumer that joins the group.
    pub(super) fn join(&self, context: Context) -> KafkaResult<BaseConsumer<Context>> {
        let consumer: BaseConsumer<Context> = self.config.consumer(&self.group).create_with_context(context)?;
        consumer.subscribe(&[&self.topic])?;
        Ok(consumer)
    }

    /// A client that asks about the group without being a member.
    pub(super) fn observe(&self) -> KafkaResult<BaseConsumer> {
        self.config.consumer(&self.group).create()
    }
}

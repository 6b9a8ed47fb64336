//! The topic that a consumer reads as a member of a group.

use rdkafka::ClientConfig;
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
        self.join_with(&self.config.consumer(&self.group), context)
    }

    /// A consumer that joins the group without the configured `group.instance.id`. So the coordinator begins a rebalance.
    pub(super) fn join_as_new_member(&self, context: Context) -> KafkaResult<BaseConsumer<Context>> {
        self.join_with(self.config.consumer(&self.group).remove("group.instance.id"), context)
    }

    fn join_with(&self, config: &ClientConfig, context: Context) -> KafkaResult<BaseConsumer<Context>> {
        let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
        consumer.subscribe(&[&self.topic])?;
        Ok(consumer)
    }

    /// A client that asks about the group without being a member.
    pub(super) fn observe(&self) -> KafkaResult<BaseConsumer> {
        self.config.consumer(&self.group).create()
    }
}

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
    /// A consumer that can join the group.
    pub(super) fn member(&self, context: Context) -> KafkaResult<BaseConsumer<Context>> {
        self.config.consumer(&self.group).create_with_context(context)
    }

    /// A consumer without the configured `group.instance.id`. If it joins the group, the coordinator begins a rebalance.
    pub(super) fn new_member(&self, context: Context) -> KafkaResult<BaseConsumer<Context>> {
        self.config.consumer(&self.group).remove("group.instance.id").create_with_context(context)
    }

    /// Makes `consumer` join the group.
    pub(super) fn join(&self, consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
        consumer.subscribe(&[&self.topic])
    }

    /// A client that asks about the group without being a member.
    pub(super) fn observe(&self) -> KafkaResult<BaseConsumer> {
        self.config.consumer(&self.group).create()
    }
}

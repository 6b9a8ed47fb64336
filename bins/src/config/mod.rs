//! The environment variables of each program.

#[cfg(feature = "services")]
mod all;
mod api_addresses;
#[cfg(feature = "services")]
mod cache;
#[cfg(feature = "services")]
mod events;
#[cfg(feature = "services")]
mod kafka;
#[cfg(feature = "services")]
mod names;
#[cfg(feature = "services")]
mod ops_port;
#[cfg(feature = "services")]
mod postgres;
#[cfg(all(test, feature = "services"))]
mod tests;

#[cfg(feature = "services")]
pub(crate) use self::{
    all::declare_all_of_commands,
    kafka::{TOPIC_NAME, consumer_groups, topic_name},
};
#[cfg(feature = "services")]
pub use self::{
    cache::{Answers, redis},
    events::{consumer, event_limits, mode, partition_plan, partitions_ahead},
    kafka::{Groups, Kafka},
    ops_port::{api_ops, ops},
    postgres::{postgres, read_postgres},
};
pub use api_addresses::{ApiAddresses, has_page};
#[cfg(feature = "services")]
pub use names::NAMES;

/// The build of the demonstration alone gives no warnings about variables.
#[cfg(not(feature = "services"))]
pub const NAMES: crate::process::VariableNames = crate::process::VariableNames::NONE;

/// Declares the variables of all commands, for the help.
#[cfg(not(feature = "services"))]
pub(crate) fn declare_all_of_commands(variables: &mut crate::process::Variables) {
    ApiAddresses::read(variables);
    has_page(variables);
}

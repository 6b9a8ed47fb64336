//! The commands that administer a real installation: schema, topics, partitions, limits, mode.

mod limits;
mod migrate;
mod mode;
mod partitions;
mod topic;

pub(crate) use limits::LimitsCommand;
pub(crate) use migrate::MigrateCommand;
pub(crate) use mode::ModeCommand;
pub(crate) use partitions::PartitionsCommand;
pub(crate) use topic::TopicCommand;

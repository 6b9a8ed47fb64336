#![doc = include_str!("../README.md")]

mod bounded_reader;
mod config;
mod dead_letters;
mod error;
mod group_offsets;
mod health;
mod log;
mod metadata;
mod metrics;
mod producer;
mod publisher;
mod record;
mod runner;
mod source;
mod topics;

pub use config::{ConfigError, KafkaConfig};
pub use dead_letters::{
    DlqCount, DlqFilter, DlqKind, DlqOrigin, DlqReader, DlqRecord, DlqRecords, DlqSummary, KafkaDeadLetters,
    KafkaReplay, ReplayCount, ReplayError, ReplayPlan, ReplayReport, Replayable, Replayed, Unreplayable,
    replay_markers_topic,
};
pub use health::{KafkaHealth, KafkaProblem, SourceLag};
pub use metadata::PartitionDescription;
pub use metrics::{KafkaMetrics, describe_metrics};
pub use publisher::KafkaPublisher;
pub use runner::KafkaRunner;
pub use source::KafkaSource;
pub use topics::{Creation, KafkaTopics, TopicDescription, TopicListing, TopicSpec};

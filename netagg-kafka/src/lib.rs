#![doc = include_str!("../README.md")]

mod config;
mod dead_letters;
mod error;
mod health;
mod log;
mod producer;
mod publisher;
mod source;
mod topics;

pub use config::{ConfigError, KafkaConfig};
pub use dead_letters::KafkaDeadLetters;
pub use health::{KafkaHealth, KafkaProblem};
pub use publisher::KafkaPublisher;
pub use source::KafkaSource;
pub use topics::{
    Creation, KafkaTopics, PartitionDescription, PartitionLag, TopicDescription, TopicListing, TopicSpec,
};

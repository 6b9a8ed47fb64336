#![doc = include_str!("../README.md")]

mod config;
mod dead_letters;
mod error;
mod group_offsets;
mod health;
mod log;
mod producer;
mod publisher;
mod record;
mod snapshot;
mod source;
mod topics;

pub use config::{ConfigError, KafkaConfig};
pub use dead_letters::{
    KafkaDeadLetters, KafkaLetterReader, KafkaReplay, LetterOrigin, Letters, Replayable, Replayed, StoredLetter,
    Unreplayable, replay_markers_topic,
};
pub use health::{KafkaHealth, KafkaProblem, SourceLag};
pub use publisher::KafkaPublisher;
pub use source::KafkaSource;
pub use topics::{Creation, KafkaTopics, PartitionDescription, TopicDescription, TopicListing, TopicSpec};

//! The dead-letter topic: writing, reading and replaying dead letters.

mod counts;
mod dlq_record;
mod filter;
mod json;
mod newest;
mod reader;
mod replay_markers;
mod replay_plan;
mod replay_producer;
mod writer;

pub use counts::DlqCount;
pub use dlq_record::{DlqKind, DlqOrigin, DlqRecord, Replayable, Unreplayable};
pub use filter::DlqFilter;
pub use newest::DlqSummary;
pub use reader::{DlqReader, DlqRecords};
pub use replay_markers::{Replayed, topic as replay_markers_topic};
pub use replay_plan::{ReplayCount, ReplayError, ReplayPlan, ReplayReport};
pub use replay_producer::KafkaReplay;
pub use writer::KafkaDeadLetters;

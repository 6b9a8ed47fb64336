//! The topic of dead letters: writing it, reading it, and sending what is in it once more.

mod counts;
mod filter;
mod json;
mod newest;
mod plan;
mod reader;
mod replay;
mod replay_markers;
mod stored_letter;
mod writer;

pub use counts::LetterCount;
pub use filter::LetterFilter;
pub use newest::LetterSummary;
pub use plan::{ReplayCount, ReplayError, ReplayPlan, ReplayReport};
pub use reader::{KafkaLetterReader, Letters};
pub use replay::KafkaReplay;
pub use replay_markers::{Replayed, topic as replay_markers_topic};
pub use stored_letter::{LetterKind, LetterOrigin, Replayable, StoredLetter, Unreplayable};
pub use writer::KafkaDeadLetters;

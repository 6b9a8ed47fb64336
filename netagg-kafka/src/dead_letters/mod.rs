//! The topic of dead letters: writing it, reading it, and sending what is in it once more.

mod letter;
mod reader;
mod replay;
mod replayed;
mod writer;

pub use letter::{LetterOrigin, Replayable, StoredLetter, Unreplayable};
pub use reader::{KafkaLetterReader, Letters};
pub use replay::KafkaReplay;
pub use replayed::{Replayed, topic as replay_markers_topic};
pub use writer::KafkaDeadLetters;

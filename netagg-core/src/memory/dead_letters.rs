//! Dead letters in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::Error;
use crate::dead_letter::DeadLetter;
use crate::ports::DeadLetters;

/// Keeps every dead letter in memory.
#[derive(Debug, Default)]
pub struct MemoryDeadLetters(Mutex<Vec<DeadLetter>>);

impl MemoryDeadLetters {
    /// An empty collection of dead letters.
    pub fn new() -> Self {
        Self::default()
    }

    /// All dead letters, in the order in which they were sent.
    pub fn sent(&self) -> Vec<DeadLetter> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DeadLetter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn send(&self, dead_letters: &[DeadLetter]) -> Result<(), Error> {
        self.lock().extend_from_slice(dead_letters);
        Ok(())
    }
}

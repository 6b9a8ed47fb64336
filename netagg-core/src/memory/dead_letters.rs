//! Dead letters in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::Error;
use crate::dead_letter::DeadLetter;
use crate::ports::DeadLetters;

/// Keeps every dead letter.
#[derive(Debug, Default)]
pub struct MemoryDeadLetters(Mutex<Vec<DeadLetter>>);

impl MemoryDeadLetters {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of them, in the order they were sent.
    pub fn letters(&self) -> Vec<DeadLetter> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DeadLetter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        self.lock().extend_from_slice(letters);
        Ok(())
    }
}

//! Where messages go that are no valid events.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::dead_letter::DeadLetter;

/// Keeps what could not be taken, with the reason.
#[async_trait]
pub trait DeadLetters: Debug + Send + Sync {
    /// Keeps `letters`, each with its key, value and [headers](DeadLetter::headers), null staying null.
    ///
    /// All are durable when it returns. A repeated call keeps them again: readers tell copies by the source position
    /// in the headers.
    ///
    /// # Errors
    /// Retryable while they cannot be kept; any of them may have been.
    async fn send(&self, letters: &[DeadLetter]) -> Result<(), Error>;
}

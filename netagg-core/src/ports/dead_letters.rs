//! The destination of dead letters: messages that are not valid events.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Error;
use crate::dead_letter::DeadLetter;

/// Keeps each message that netagg did not accept as an event, with the reason.
#[async_trait]
pub trait DeadLetters: Debug + Send + Sync {
    /// Keeps `dead_letters`, each with its key, value and [headers](DeadLetter::headers). A null key,
    /// value or header value stays null.
    ///
    /// All dead letters are durable when the call returns. A repeated call keeps another copy of each. Readers recognize copies
    /// by the source position in the headers.
    ///
    /// # Errors
    /// A retryable error while the dead letters cannot be kept. Some of them may be durable already.
    async fn send(&self, dead_letters: &[DeadLetter]) -> Result<(), Error>;
}

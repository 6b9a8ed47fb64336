//! Waits until a condition is true.

use std::time::{Duration, Instant};

/// Calls `check` until it succeeds, and returns its value.
///
/// # Panics
/// When `deadline` has passed. The message contains the name of the condition (`what`) and the last error.
pub async fn eventually<T>(deadline: Duration, what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(error) if begun.elapsed() > deadline => panic!("{what}: not within {deadline:?}; last: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

//! Signals: the first asks for a graceful stop, the second ends the process at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A stop that takes longer than this is cut short; what was in flight is delivered again at the next start.
const DEADLINE: Duration = Duration::from_secs(28);

/// Tells the parts of a program to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Stops at SIGTERM or SIGINT; a second one exits with 130 (SIGINT) or 143 (SIGTERM).
    ///
    /// # Errors
    /// When the system refuses the signal handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::default();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = shutdown.0.clone();
        tokio::spawn(async move {
            next(&mut terminate, &mut interrupt).await;
            tracing::info!("stopping");
            token.cancel();
            tokio::select! {
                code = next(&mut terminate, &mut interrupt) => std::process::exit(code),
                () = tokio::time::sleep(DEADLINE) => {
                    tracing::warn!("the stop takes too long and is cut short");
                    std::process::exit(0);
                }
            }
        });
        Ok(shutdown)
    }

    /// The token that is cancelled when it is time to stop.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Stops now.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => 143,
        _ = interrupt.recv() => 130,
    }
}

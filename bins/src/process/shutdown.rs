//! How a program stops: at a signal, or because one of its tasks has panicked. A second signal ends it at once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;

/// A stop that takes longer than this is cut short; the records in flight are delivered again at the next start. It is
/// shorter than the 30 s that Kubernetes grants by default, and longer than the parts of a stop together.
const DEADLINE: Duration = Duration::from_secs(28);

/// Tells the parts of a program to stop, and watches its tasks.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<State>);

#[derive(Debug, Default)]
struct State {
    stop: CancellationToken,
    /// The first task that has panicked.
    panicked: OnceLock<Panicked>,
}

#[derive(Clone, Copy, Debug)]
struct Panicked {
    task: &'static str,
}

impl Shutdown {
    /// Stops at SIGTERM or SIGINT; a second one exits with 130 (SIGINT) or 143 (SIGTERM).
    ///
    /// # Errors
    /// When the system refuses the signal handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        // A write beyond the largest size of a file (`ulimit -f`) then fails like one on a full disk. The signal's
        // default is to end the process.
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        let shutdown = Self::default();
        let signals =
            Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        shutdown.spawn("signals", shutdown.clone().follow(signals));
        Ok(shutdown)
    }

    /// Runs a task of the program beside its job. If the task panics, the program stops as at SIGTERM, and exits with 1.
    /// Otherwise the program would go on without the task, and no operator would notice.
    pub fn spawn(&self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.clone();
        let running = tokio::spawn(work);
        tokio::spawn(async move {
            if let Err(error) = running.await {
                shutdown.note(task, &error);
            }
        });
    }

    fn note(&self, task: &'static str, error: &JoinError) {
        // One that was cancelled ends with the runtime.
        if error.is_panic() {
            tracing::error!(task, %error, "a task has panicked; stopping");
            self.0.panicked.get_or_init(|| Panicked { task });
            self.0.stop.cancel();
        }
    }

    /// The token that is cancelled when it is time to stop.
    pub fn token(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// Stops now.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Checks that no task has panicked.
    ///
    /// # Errors
    /// [`Failure::Failed`] with the name of the first task that has.
    pub fn check(&self) -> Result<(), Failure> {
        match self.0.panicked.get() {
            None => Ok(()),
            Some(Panicked { task }) => Err(Failure::Failed(format!("the task {task} has panicked").into())),
        }
    }

    async fn follow(self, mut signals: Signals) {
        let mut is_asked = tokio::select! {
            _ = signals.next() => {
                tracing::info!("stopping");
                self.stop();
                true
            }
            () = self.0.stop.cancelled() => false,
        };
        let too_long = tokio::time::sleep(DEADLINE);
        tokio::pin!(too_long);
        loop {
            tokio::select! {
                code = signals.next() => {
                    if is_asked {
                        std::process::exit(code);
                    }
                    is_asked = true;
                }
                () = &mut too_long => {
                    tracing::warn!("the stop takes too long and is cut short");
                    std::process::exit(i32::from(self.check().is_err()));
                }
            }
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// The exit code of a program that the next signal ends.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }
}

#[cfg(all(test, feature = "services"))]
mod tests {
    use netagg_api::ApiLimits;
    use netagg_core::ConsumerConfig;
    use netagg_kafka::KafkaSource;

    use super::*;

    #[test]
    fn the_parts_of_a_stop_fit_into_its_deadline() {
        // The ops port, the pool and the dead letters of a service close after its job.
        const AFTERWARDS: Duration = Duration::from_secs(5);
        let consumer = ConsumerConfig::default().stop_timeout() + KafkaSource::CLOSE_TIMEOUT;
        for (service, job) in [("consumer", consumer), ("api", ApiLimits::default().stop_timeout)] {
            assert!(job + AFTERWARDS <= DEADLINE, "{service}: {job:?}");
        }
        assert!(DEADLINE < Duration::from_secs(30));
    }
}

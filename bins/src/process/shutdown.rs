//! The stop of a program: after a signal, or after a panic of a background task. A second signal ends the program at once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;

/// The longest duration of a stop. After it the program exits, and Kafka delivers the records in flight again at the next
/// start. It is shorter than the 30 s that Kubernetes grants by default, and longer than the sum of all parts of a stop.
const DEADLINE: Duration = Duration::from_secs(28);

/// Tells the parts of a program to stop, and watches its background tasks.
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
    /// A shutdown that begins at SIGTERM or SIGINT. A second signal exits with 130 (SIGINT) or 143 (SIGTERM).
    ///
    /// # Errors
    /// When the system rejects the signal handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        // With a handler for SIGXFSZ, a write beyond the largest file size (`ulimit -f`) fails like a write to a full disk.
        // Without a handler, the signal ends the process.
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        let shutdown = Self::default();
        let signals =
            Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        shutdown.spawn("signals", shutdown.clone().follow(signals));
        Ok(shutdown)
    }

    /// Runs a background task. If the task panics, the program stops as after SIGTERM, and exits with 1. Otherwise the program
    /// would run without the task, and no operator would notice.
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
        // A task that was cancelled ends together with the runtime.
        if error.is_panic() {
            tracing::error!(task, %error, "a task has panicked; stopping");
            self.0.panicked.get_or_init(|| Panicked { task });
            self.0.stop.cancel();
        }
    }

    /// The token that is cancelled when the program must stop.
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
    /// [`Failure::Failed`] with the name of the first task that has panicked.
    pub fn check(&self) -> Result<(), Failure> {
        match self.0.panicked.get() {
            None => Ok(()),
            Some(Panicked { task }) => Err(Failure::Failed(format!("the task {task} has panicked").into())),
        }
    }

    async fn follow(self, mut signals: Signals) {
        let mut has_signal = tokio::select! {
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
                    if has_signal {
                        std::process::exit(code);
                    }
                    has_signal = true;
                }
                () = &mut too_long => {
                    tracing::warn!("the stop takes longer than {} s; exiting now", DEADLINE.as_secs());
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
    /// Waits for the next signal. Returns the exit code of a program that this signal ends.
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

//! The supervisor of a server that a test starts: a shell process that carries out orders and cleans up.
//!
//! The test process cannot clean up by itself, because statics are never dropped, and a killed process runs no code. So each
//! server has a supervisor. The supervisor reads its orders from a pipe, and only the test process holds the other end. When
//! the test process ends, the pipe ends, and the supervisor ends the server. The supervisor has its own process group, so
//! Ctrl-C does not reach it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

/// An order to a supervisor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Start,
    Stop,
    Crash,
    Pause,
    Resume,
    Alive,
}

impl Order {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Alive => "alive",
        }
    }
}

/// The handle of a supervisor. Dropping the last handle ends the server, and waits until the supervisor has removed it.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor(Arc<Mutex<Shell>>);

#[derive(Debug)]
struct Shell {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    /// A supervisor for a native server. It runs `command` in the temporary `folder`.
    pub(crate) fn native(folder: &Path, signals: Signals, command: &Command) -> std::io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", include_str!("native.sh"), "supervisor"]).arg(folder).args([signals.stop, signals.crash]);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        Self::spawn(shell)
    }

    /// A supervisor for the container `name`. The container does not have to exist yet.
    pub(crate) fn docker(name: &str) -> std::io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", include_str!("docker.sh"), "supervisor", name]);
        Self::spawn(shell)
    }

    fn spawn(mut shell: Command) -> std::io::Result<Self> {
        let mut process =
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn()?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            unreachable!("stdin and stdout are piped");
        };
        Ok(Self(Arc::new(Mutex::new(Shell { process, orders: Some(orders), answers: BufReader::new(answers) }))))
    }

    /// Sends `order` to the supervisor. Returns `false` if it failed, or, for [`Order::Alive`], if the server has ended.
    pub(crate) async fn order(&self, order: Order) -> bool {
        let shell = Arc::clone(&self.0);
        // The reply may take seconds, so a blocking thread waits for it while other tasks of the test continue.
        tokio::task::spawn_blocking(move || shell.lock().is_ok_and(|mut shell| shell.order(order)))
            .await
            .unwrap_or(false)
    }
}

impl Shell {
    fn order(&mut self, order: Order) -> bool {
        let Some(orders) = &mut self.orders else { return false };
        let mut answer = String::new();
        writeln!(orders, "{}", order.word()).is_ok()
            && self.answers.read_line(&mut answer).is_ok()
            && answer.trim_end() == "ok"
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.orders.take());
        // An error means that there is no process to wait for.
        let _ = self.process.wait();
    }
}

/// The names of the signals that stop a native server cleanly and that make it crash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signals {
    pub(crate) stop: &'static str,
    pub(crate) crash: &'static str,
}

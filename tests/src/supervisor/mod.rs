//! The shell process behind every server that a test starts: it carries out orders and cleans up.
//!
//! Statics are never dropped and a killed process runs nothing, so cleaning up cannot be left to the test process.
//! A supervisor reads its orders from a pipe that only the test process holds; the end of that pipe is the end of the
//! test process, and the supervisor then ends the server. It has a process group of its own, so Ctrl-C does not reach it.

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

/// The handle of a supervisor; its drop ends the server and waits until nothing is left of it.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor(Arc<Mutex<Shell>>);

#[derive(Debug)]
struct Shell {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    /// A supervisor for a native server: `command` in a throwaway `folder`.
    pub(crate) fn native(folder: &Path, signals: Signals, command: &Command) -> std::io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", include_str!("native.sh"), "supervisor"]).arg(folder).args([signals.stop, signals.crash]);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        Self::spawn(shell)
    }

    /// A supervisor for the container `name`, which need not exist yet.
    pub(crate) fn docker(name: &str) -> std::io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", include_str!("docker.sh"), "supervisor", name]);
        Self::spawn(shell)
    }

    fn spawn(mut shell: Command) -> std::io::Result<Self> {
        let mut process =
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn()?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            unreachable!("both are piped");
        };
        Ok(Self(Arc::new(Mutex::new(Shell { process, orders: Some(orders), answers: BufReader::new(answers) }))))
    }

    /// Has `order` carried out; `false` when it failed, or, for [`Order::Alive`], when the server has ended.
    pub(crate) async fn order(&self, order: Order) -> bool {
        let shell = Arc::clone(&self.0);
        // the answer may take seconds, and other tasks of the test's runtime must go on meanwhile
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
        // an error means there is no process to wait for
        let _ = self.process.wait();
    }
}

/// The names of the signals that stop a native server cleanly and that make it crash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signals {
    pub(crate) stop: &'static str,
    pub(crate) crash: &'static str,
}

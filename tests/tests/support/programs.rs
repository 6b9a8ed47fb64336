//! Runs the built programs as processes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The number of last lines of a program that are printed for a failed test.
const LINES: usize = 60;
/// How long the report of a failed test waits for the ops port.
const OPS_TIMEOUT: Duration = Duration::from_secs(5);

/// The path of the built program `name`: in the target directory of the running test.
///
/// # Panics
/// When the program was not built.
pub(crate) fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the running test has a path");
    // target/debug/deps/main-0123 -> target/debug/name
    test.ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("no program {name} beside {}: run `cargo build -p netagg`", test.display()))
}

/// A running program of netagg. It is killed when the value is dropped, or when the test process ends in any way.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    folder: TempDir,
    /// The ops port, if the program has one.
    ops: Option<u16>,
    _guard: Guard,
}

impl Process {
    /// Starts the program `name` in an empty working directory, with these variables. Variables of the test process that could
    /// configure the program are removed.
    ///
    /// # Panics
    /// When the program was not built or cannot be started.
    pub(crate) fn start<A, K, V>(
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self
    where
        A: AsRef<OsStr>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        Self::spawn(name, Command::new(path(name)), arguments, variables, |_| {})
    }

    /// Like [`start`](Self::start), but through a shell. The shell first runs the command `first`, such as `ulimit -n 100`, and
    /// then starts the program with `redirections`, such as `2>/dev/full`.
    ///
    /// # Panics
    /// Like [`start`](Self::start).
    pub(crate) fn start_in_shell<A, K, V>(
        name: &str,
        first: &str,
        redirections: &str,
        arguments: impl IntoIterator<Item = A>,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self
    where
        A: AsRef<OsStr>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("{first}\nexec \"$0\" \"$@\" {redirections}")).arg(path(name));
        Self::spawn(name, shell, arguments, variables, |_| {})
    }

    /// Starts `bash` with a script. The script ends background programs that it starts.
    ///
    /// # Panics
    /// When bash cannot be started.
    pub(crate) fn shell<K, V>(script: &str, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        Self::spawn("bash", Command::new("bash"), ["-c", script], variables, |_| {})
    }

    /// Like [`start`](Self::start), but `change` may change the command, for example to use a pipe instead of a file.
    ///
    /// # Panics
    /// Like [`start`](Self::start).
    pub(crate) fn start_with<A, K, V>(
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        variables: impl IntoIterator<Item = (K, V)>,
        change: impl FnOnce(&mut Command),
    ) -> Self
    where
        A: AsRef<OsStr>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        Self::spawn(name, Command::new(path(name)), arguments, variables, change)
    }

    fn spawn<A, K, V>(
        name: &str,
        mut command: Command,
        arguments: impl IntoIterator<Item = A>,
        variables: impl IntoIterator<Item = (K, V)>,
        change: impl FnOnce(&mut Command),
    ) -> Self
    where
        A: AsRef<OsStr>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let folder = TempDir::with_prefix("netagg-test-process-").expect("a temporary folder");
        let output = |stream| File::create(folder.path().join(stream)).expect("a file in a temporary folder");
        // Coverage tools pass their output files in LLVM_* variables.
        let kept = std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            matches!(&*name, "PATH" | "HOME" | "TMPDIR" | "RUST_BACKTRACE") || name.starts_with("LLVM_")
        });
        command.args(arguments).env_clear().envs(kept).envs(variables);
        let ops = command.get_envs().find_map(|(variable, value)| {
            let is_its_own = variable.to_str()? == format!("PPROF_PORT_{}", name.to_uppercase());
            value?.to_str()?.parse().ok().filter(|_| is_its_own)
        });
        command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .process_group(0);
        change(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let guard = Guard::new(&child, &folder);
        Self { name: name.to_owned(), child, folder, ops, _guard: guard }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the program to stop (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills the program (SIGKILL).
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .unwrap_or_else(|error| panic!("{} cannot get a signal: {error}", self.name));
    }

    /// Whether the program still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the program ends.
    ///
    /// # Panics
    /// When the program has not ended within `timeout`.
    pub(crate) async fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status,
                Ok(None) if begun.elapsed() < timeout => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{} did not end within {timeout:?}: {other:?}\n{}", self.name, self.stderr()),
            }
        }
    }

    /// Waits until the program ends, and returns its exit code. For a program that a signal has ended, this is 128 plus the
    /// number of the signal.
    ///
    /// # Panics
    /// When the program has not ended within `timeout`.
    pub(crate) async fn code(&mut self, timeout: Duration) -> i32 {
        let status = self.wait(timeout).await;
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// The output on stdout so far.
    pub(crate) fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// The output on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, stream: &str) -> String {
        let bytes = std::fs::read(self.folder.path().join(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Process {
    /// Prints the last lines of the program, and its readiness and metrics if it has an ops port. This helps to understand a
    /// failed test.
    #[allow(clippy::print_stderr, reason = "the test harness shows the output of a failed test")]
    fn explain(&mut self) {
        let state = match self.child.try_wait() {
            Ok(None) => "running".to_owned(),
            other => format!("{other:?}"),
        };
        eprintln!("---- {} ({}), {state}", self.name, self.child.id());
        for (stream, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            let lines: Vec<_> = text.lines().collect();
            let first = lines.len().saturating_sub(LINES);
            eprintln!("{stream}, from line {}:\n{}", first + 1, lines[first..].join("\n"));
        }
        for path in self.ops.map(|_| ["/readyz", "/metrics"]).into_iter().flatten() {
            let response = self.ask(path).unwrap_or_else(|error| error.to_string());
            let lines: Vec<_> = response.lines().filter(|line| !line.starts_with('#')).collect();
            eprintln!("{path}: {}", lines.join("\n"));
        }
    }

    /// The response of the ops port, with a timeout of a few seconds.
    fn ask(&self, path: &str) -> std::io::Result<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ops.unwrap_or_default()));
        let mut stream = TcpStream::connect_timeout(&address, OPS_TIMEOUT)?;
        stream.set_read_timeout(Some(OPS_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
        // Both calls fail only if the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell that kills the program if this process ends without dropping the [`Process`].
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn new(program: &Child, folder: &TempDir) -> Self {
        // The shell reads from a pipe whose other end only this process holds.
        let shell = Command::new("sh")
            .args(["-c", r#"read -r _; kill -KILL "$1"; rm -rf "$2""#, "guard", &program.id().to_string()])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell");
        Self(shell)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The program has ended, so another process may have its process id now. Killing the shell before its pipe closes
        // prevents the shell from killing that process.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

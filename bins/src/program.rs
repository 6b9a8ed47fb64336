//! What every program does around its job: arguments, configuration, logs, the runtime and the exit code.

use std::process::ExitCode;

use crate::logging::{LogConfig, LogDefaults};
use crate::{Shutdown, Variables};

/// Exit code for wrong configuration or usage.
const WRONG_USAGE: u8 = 2;

/// Why a program ends without having done its job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The configuration or the arguments cannot be used: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The job failed: exit code 1.
    #[error(transparent)]
    Failed(#[from] netagg_core::BoxError),
}

impl From<netagg_core::Error> for Failure {
    fn from(error: netagg_core::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(WRONG_USAGE),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

/// A program without arguments of its own, configured by its variables alone.
#[derive(Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Program<C> {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Reads its variables.
    pub configure: fn(&mut Variables) -> C,
    /// What it logs by default.
    pub log: LogDefaults,
}

impl<C> Program<C> {
    /// Reads the arguments and the configuration, and runs `job`.
    pub fn run<F: Future<Output = Result<ExitCode, Failure>>>(self, job: impl FnOnce(C, Shutdown) -> F) -> ExitCode {
        let mut described = Variables::default();
        (self.configure)(&mut described);
        self.log.describe(&mut described);
        clap::Command::new(self.name)
            .about(self.about)
            .version(env!("CARGO_PKG_VERSION"))
            // The variables stand in columns, which wrapping would break.
            .term_width(0)
            .after_help(described.help())
            .get_matches();
        run_with(self.configure, self.log, job)
    }
}

/// Reads the configuration, starts logs and runtime, runs `job`, and tells what went wrong.
pub fn run_with<C, F: Future<Output = Result<ExitCode, Failure>>>(
    configure: impl FnOnce(&mut Variables) -> C,
    log: LogDefaults,
    job: impl FnOnce(C, Shutdown) -> F,
) -> ExitCode {
    match try_run(configure, log, job) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            failure.exit_code()
        }
    }
}

fn try_run<C, F: Future<Output = Result<ExitCode, Failure>>>(
    configure: impl FnOnce(&mut Variables) -> C,
    log: LogDefaults,
    job: impl FnOnce(C, Shutdown) -> F,
) -> Result<ExitCode, Failure> {
    let mut variables = Variables::from_environment().map_err(Failure::Usage)?;
    let config = configure(&mut variables);
    let log = LogConfig::read(&mut variables, log);
    variables
        .check()
        .map_err(|problems| Failure::Usage(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    log.start();
    #[cfg(feature = "crash-points")]
    netagg_core::crash::set_up();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { job(config, Shutdown::on_signals()?).await });
    // A blocking read of a terminal or a broken connection must not keep the process.
    runtime.shutdown_background();
    outcome
}

#[allow(clippy::print_stderr, reason = "what a person at a terminal reads, whatever the log level")]
fn complain(failure: &Failure) {
    for (at, text) in netagg_core::causes(failure).iter().enumerate() {
        eprintln!("{}: {text}", if at == 0 { "error" } else { "  because" });
    }
}

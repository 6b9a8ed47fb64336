//! Runs the programs of netagg. All programs know the same environment variables.

use std::process::ExitCode;

use crate::process::{LogDefaults, Program, Shutdown, Variables, run_with};

use crate::Failure;
use crate::config::NAMES;

/// Runs a command for people: reads its variables with `configure`, and runs `job`.
pub(crate) fn run_command<C, F: Future<Output = Result<ExitCode, Failure>>>(
    configure: impl FnOnce(&mut Variables) -> C,
    job: impl FnOnce(C, Shutdown) -> F,
) -> ExitCode {
    run_with("netagg", configure, LogDefaults::COMMAND, NAMES, job)
}

/// The program `name` without arguments. Its help prints `about`, and `configure` reads its variables.
pub fn program<C>(
    name: &'static str,
    about: &'static str,
    log: LogDefaults,
    configure: fn(&mut Variables) -> C,
) -> Program<C> {
    Program { name, about, configure, log, names: NAMES }
}

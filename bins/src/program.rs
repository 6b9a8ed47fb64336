//! How the programs are run: all know the same variables.

use std::process::ExitCode;

use crate::process::{LogDefaults, Program, Shutdown, Variables, run_with};

use crate::Failure;
use crate::config::NAMES;

/// Runs a command for people: it reads its variables with `configure`, and does `job`.
pub(crate) fn run_command<C, F: Future<Output = Result<ExitCode, Failure>>>(
    configure: impl FnOnce(&mut Variables) -> C,
    job: impl FnOnce(C, Shutdown) -> F,
) -> ExitCode {
    run_with(configure, LogDefaults::COMMAND, NAMES, job)
}

/// The program `name` without arguments, which does what `about` says and reads its variables with `configure`.
pub fn program<C>(
    name: &'static str,
    about: &'static str,
    log: LogDefaults,
    configure: fn(&mut Variables) -> C,
) -> Program<C> {
    Program { name, about, configure, log, names: NAMES }
}

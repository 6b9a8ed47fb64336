//! The frame of a program around its job: arguments, configuration, logs, runtime and exit code.

use std::io::{ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::FromArgMatches;

use super::env::{VariableNames, Variables};
use super::failure::{Failure, WRONG_USAGE};
use super::logging::{LogConfig, LogDefaults};
use super::shutdown::Shutdown;
use super::{file_descriptors, output};
#[cfg(feature = "services")]
use crate::traces::{Traces, TracesConfig};

/// A program without arguments. Only environment variables configure it.
#[derive(Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Program<C> {
    /// The name on the command line.
    pub name: &'static str,
    /// A short description for the help.
    pub about: &'static str,
    /// Reads the environment variables.
    pub configure: fn(&mut Variables) -> C,
    /// The defaults of the log.
    pub log: LogDefaults,
    /// The variables of all programs, for warnings about misspelled variables.
    pub names: VariableNames,
}

impl<C> Program<C> {
    /// Reads the arguments and the configuration, and runs `job` on a tokio runtime. Returns the exit code of the job. If the
    /// job fails, prints its [`Failure`] with all causes to stderr, and returns the exit code of the failure.
    pub fn run<F: Future<Output = Result<ExitCode, Failure>>>(self, job: impl FnOnce(C, Shutdown) -> F) -> ExitCode {
        let mut described = Variables::default();
        (self.configure)(&mut described);
        self.log.describe(&mut described);
        #[cfg(feature = "services")]
        TracesConfig::read(&mut described, &service_name(self.name));
        let command = clap::Command::new(self.name)
            .about(self.about)
            .version(env!("CARGO_PKG_VERSION"))
            .after_help(described.help());
        match arguments::<()>(command) {
            Ok(_) => run_with(&service_name(self.name), self.configure, self.log, self.names, job),
            Err(code) => code,
        }
    }
}

/// Reads the arguments. Prints the help or the version if the arguments ask for it, or the reason why they cannot be used.
///
/// # Errors
/// The exit code, if the program is done after printing.
pub fn arguments<A: FromArgMatches>(command: clap::Command) -> Result<A, ExitCode> {
    // The help lists the variables in columns, and wrapping would break the columns.
    let matches = command.term_width(0).try_get_matches();
    matches.and_then(|matches| A::from_arg_matches(&matches)).map_err(|error| {
        let printed = error.print().and_then(|()| std::io::stdout().flush());
        match printed {
            _ if error.use_stderr() => ExitCode::from(WRONG_USAGE),
            // A broken pipe is no failure: a reader such as `head` has closed it.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                complain(&Failure::Failed(format!("stdout cannot be written: {error}").into()));
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        }
    })
}

/// Reads the configuration, starts logs, traces and runtime, runs `job`, and prints a failure, like [`Program::run`]. It is for
/// a program that reads its arguments itself, with [`arguments`]. `service` is the name of the program in traces.
pub fn run_with<C, F: Future<Output = Result<ExitCode, Failure>>>(
    service: &str,
    configure: impl FnOnce(&mut Variables) -> C,
    log: LogDefaults,
    names: VariableNames,
    job: impl FnOnce(C, Shutdown) -> F,
) -> ExitCode {
    output::report_panics();
    let outcome = try_run(service, configure, log, names, job);
    let written = output::finish();
    match outcome.and_then(|code| written.map(|()| code)) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            failure.exit_code()
        }
    }
}

/// The name of the program `name` in traces.
fn service_name(name: &str) -> String {
    format!("netagg-{name}")
}

#[cfg_attr(not(feature = "services"), allow(unused_variables))]
fn try_run<C, F: Future<Output = Result<ExitCode, Failure>>>(
    service: &str,
    configure: impl FnOnce(&mut Variables) -> C,
    log: LogDefaults,
    names: VariableNames,
    job: impl FnOnce(C, Shutdown) -> F,
) -> Result<ExitCode, Failure> {
    let mut variables = Variables::from_environment().map_err(Failure::Usage)?.with_names(names);
    let config = configure(&mut variables);
    let log = LogConfig::read(&mut variables, log);
    #[cfg(feature = "services")]
    let traces = TracesConfig::read(&mut variables, service);
    variables
        .check()
        .map_err(|problems| Failure::Usage(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    file_descriptors::raise()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    #[cfg(not(feature = "services"))]
    log.start(None);
    #[cfg(feature = "services")]
    let traces = {
        let _entered = runtime.enter();
        let traces = traces.map(Traces::new).transpose()?;
        log.start(traces.as_ref().map(Traces::layer));
        traces
    };
    #[cfg(feature = "crash-points")]
    netagg_core::crash::set_up();
    let run = async {
        let shutdown = Shutdown::on_signals()?;
        variables.warn();
        let code = job(config, shutdown.clone()).await?;
        shutdown.check()?;
        Ok(code)
    };
    // The panic hook has already written the panic to stderr.
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run)))
        .unwrap_or_else(|_| Err(Failure::Failed("the program has panicked".into())));
    #[cfg(feature = "services")]
    if let Some(traces) = traces {
        traces.stop();
    }
    // The process must not wait for a blocking read of a terminal or of a broken connection.
    runtime.shutdown_background();
    outcome
}

/// Prints a failure and its causes to stderr, at any log level.
fn complain(failure: &Failure) {
    let mut text = String::new();
    for (at, cause) in netagg_core::causes(failure).iter().enumerate() {
        text += &format!("{}: {cause}\n", if at == 0 { "error" } else { "  because" });
    }
    // If stderr cannot be written, the exit code still reports the failure.
    let _ = output::write_line(text.as_bytes());
}

//! The parts that every program has around its job: environment variables, logs, output, stop and exit code.

mod env;
mod env_file;
mod failure;
pub mod file_descriptors;
mod logging;
mod misspelled;
pub mod output;
mod program;
mod shutdown;
pub mod terminal_escape;
mod trace_id_format;

pub(crate) use output::{noteln, outln};

pub use env::{EnvError, VariableNames, Variables};
pub use failure::Failure;
#[cfg(feature = "services")]
pub(crate) use logging::TraceLayer;
pub use logging::{LogDefaults, lost_lines};
pub use program::{Program, arguments, run_with};
pub use shutdown::Shutdown;

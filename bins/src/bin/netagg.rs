//! The command `netagg`: a demonstration that needs no server, and the administration of a real installation.

use std::process::ExitCode;

fn main() -> ExitCode {
    netagg::cli::run()
}

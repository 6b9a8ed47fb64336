//! netagg's command: a demonstration without any service, and the administration of a real installation.

use std::process::ExitCode;

fn main() -> ExitCode {
    netagg::cli::run()
}

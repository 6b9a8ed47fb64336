//! Docker containers, through testcontainers.

use std::process::Stdio;
use std::time::Duration;

use testcontainers::core::{ContainerPort, ImageExt};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerRequest, GenericImage};
use tokio::process::Command;

/// The time for pulling an image and starting its container.
const START: Duration = Duration::from_secs(600);

/// Whether a Docker engine is available.
pub(crate) async fn answers() -> bool {
    let mut command = Command::new("docker");
    command.args(["version", "--format", "{{.Server.Version}}"]).stdin(Stdio::null()).kill_on_drop(true);
    matches!(tokio::time::timeout(Duration::from_secs(10), command.output()).await, Ok(Ok(output)) if output.status.success())
}

/// Starts the container `name`. Its port `inside` is published as `outside`, also after a stop and a new start. The supervisor
/// of the container removes it.
pub(crate) async fn run(
    request: ContainerRequest<GenericImage>,
    name: &str,
    inside: u16,
    outside: u16,
) -> Result<(), String> {
    let request = request
        .with_container_name(name)
        .with_mapped_port(outside, ContainerPort::Tcp(inside))
        .with_startup_timeout(START);
    let container = request.start().await.map_err(|error| error.to_string())?;
    // Dropping this value would remove the container. The container belongs to the supervisor, which outlives this process.
    std::mem::forget(container);
    Ok(())
}

/// The last lines of the container's log.
pub(crate) async fn log(name: &str) -> String {
    match Command::new("docker").args(["logs", "--tail", "20", name]).output().await {
        Ok(output) => [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
        Err(error) => error.to_string(),
    }
}

//! A server of any kind, in a container or native, that a test can stop, crash and start again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testcontainers::{ContainerRequest, GenericImage};

use crate::docker;
use crate::port::Port;
use crate::supervisor::{Order, Signals, Supervisor};

/// How long a server may take until it responds. On two cores with much other work, the start of a broker has taken two minutes.
const READY: Duration = Duration::from_secs(400);

/// A server whose port was taken ends soon after its start. If a start fails within this time, the harness tries another port. A
/// later failure has another reason.
const LOST_PORT: Duration = Duration::from_secs(60);

/// How to start and check a kind of server.
pub(crate) trait Recipe {
    /// The name of the kind for `native/serve`.
    const NAME: &'static str;

    /// The port that the server listens on in its container.
    const PORT: u16;

    /// The signals for a native server.
    const SIGNALS: Signals;

    /// The image and its command. Clients connect to `port` of this machine.
    fn container(&self, port: u16) -> ContainerRequest<GenericImage>;

    /// Adds options and environment to the call of `native/serve`.
    fn native(&self, command: &mut Command);

    /// Connects, sends a request, and checks the response.
    async fn answers(&self, port: u16) -> Result<(), String>;
}

#[derive(Debug)]
pub(crate) struct Server<R> {
    recipe: R,
    port: Port,
    supervisor: Supervisor,
    location: Location,
}

#[derive(Debug)]
enum Location {
    Container(String),
    Folder(PathBuf),
}

impl<R: Recipe> Server<R> {
    /// Starts a server: in a container if a Docker engine is available, else native.
    pub(crate) async fn start(recipe: impl Fn() -> R) -> Result<Self, String> {
        let docker = if docker::answers().await {
            match Self::start_retrying(&recipe, Way::Docker).await {
                Ok(server) => return Ok(server),
                Err(error) => format!("Docker: {error}"),
            }
        } else {
            "no Docker engine is available".to_owned()
        };
        if let Err(missing) = installed(R::NAME) {
            return Err(format!(
                "{} cannot be started: {docker}; native: {missing}. \
                 Run {}, or start a Docker engine, or set the service's NETAGG_TEST_ variable.",
                R::NAME,
                script("install").display()
            ));
        }
        Self::start_retrying(&recipe, Way::Native).await.map_err(|error| format!("{docker}; native: {error}"))
    }

    async fn start_retrying(recipe: &impl Fn() -> R, way: Way) -> Result<Self, String> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let begun = Instant::now();
            match Self::start_once(recipe(), way).await {
                Err(_) if attempt < 3 && begun.elapsed() < LOST_PORT => {}
                result => return result,
            }
        }
    }

    async fn start_once(recipe: R, way: Way) -> Result<Self, String> {
        let port = Port::reserve();
        let name = crate::unique(&format!("netagg-test-{}", R::NAME));
        let (supervisor, location) = match way {
            Way::Docker => (Supervisor::docker(&name), Location::Container(name)),
            Way::Native => {
                let folder = std::env::temp_dir().join(name);
                let mut command = Command::new(script("serve"));
                command.arg(R::NAME).arg(folder.join("data")).arg(port.number().to_string());
                recipe.native(&mut command);
                (Supervisor::native(&folder, R::SIGNALS, &command), Location::Folder(folder))
            }
        };
        let supervisor = supervisor.map_err(|error| format!("cannot run sh: {error}"))?;
        let server = Self { recipe, port, supervisor, location };
        match &server.location {
            Location::Container(name) => {
                docker::run(server.recipe.container(server.port()), name, R::PORT, server.port()).await?;
                announce(R::NAME, &format!("Docker container {name}, port {}", server.port()));
            }
            Location::Folder(_) => {
                server.order(Order::Start).await?;
                announce(R::NAME, &format!("native server, port {}", server.port()));
            }
        }
        server.until_it_answers().await?;
        Ok(server)
    }

    pub(crate) fn recipe(&self) -> &R {
        &self.recipe
    }

    /// The TCP port on this machine. It stays the same after a restart.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Carries out `order`; after [`Order::Start`] call [`Self::until_it_answers`].
    async fn order(&self, order: Order) -> Result<(), String> {
        if self.supervisor.order(order).await { Ok(()) } else { Err(format!("{}: {order:?} has failed", R::NAME)) }
    }

    async fn until_it_answers(&self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            if !self.supervisor.order(Order::Alive).await {
                return Err(format!("{} ended:\n{}", R::NAME, self.log().await));
            }
            let Err(error) = self.recipe.answers(self.port()).await else { return Ok(()) };
            if begun.elapsed() > READY {
                return Err(format!("{} does not respond: {error}\n{}", R::NAME, self.log().await));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The last lines of the server's log.
    async fn log(&self) -> String {
        match &self.location {
            Location::Container(name) => docker::log(name).await,
            Location::Folder(folder) => {
                let text = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(20)..].join("\n")
            }
        }
    }

    pub(crate) async fn stop(&self) {
        self.must(Order::Stop).await;
    }

    pub(crate) async fn crash(&self) {
        self.must(Order::Crash).await;
    }

    pub(crate) async fn pause(&self) {
        self.must(Order::Pause).await;
    }

    pub(crate) async fn resume(&self) {
        self.must(Order::Resume).await;
    }

    pub(crate) async fn start_again(&self) {
        self.must(Order::Start).await;
        self.until_it_answers().await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn must(&self, order: Order) {
        self.order(order).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[derive(Clone, Copy)]
enum Way {
    Docker,
    Native,
}

/// The path of a script that the crate contains. In the repository the scripts are in `deploy/native`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("native").join(name)
}

fn installed(service: &str) -> Result<(), String> {
    match Command::new(script("install")).args(["--check", service]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Prints where a service comes from. The test harness does not capture this line, because it belongs to the whole run and not
/// to a single test.
pub(crate) fn announce(service: &str, what: &str) {
    use std::io::Write;
    // An error means that stderr has no reader.
    let _ = writeln!(std::io::stderr(), "netagg-testkit: {service}: {what}");
}

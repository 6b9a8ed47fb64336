//! PostgreSQL servers and databases for tests.

use std::process::Command;
use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use crate::server::{self, Recipe};
use crate::shared::{self, Shared};
use crate::supervisor::Signals;

const VARIABLE: &str = "NETAGG_TEST_POSTGRES_URL";

/// A database on the shared server that only one test uses.
#[derive(Debug)]
pub struct Database {
    url: String,
    /// The address to drop the database from, if the server outlives this process.
    drop_from: Option<String>,
}

impl Database {
    /// The address of the database, with user and password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Creates an empty database with a unique name. The database is dropped when the value is dropped, or together with its server.
///
/// # Panics
/// When no server can be found or started.
pub async fn database() -> Database {
    database_from("template1").await
}

/// Creates a copy of a database on the shared server, with a unique name. The original must have no connections. The copy is
/// dropped like the database of [`database`].
///
/// # Panics
/// When no server can be found or started.
pub async fn copy_of(url: &str) -> Database {
    database_from(name_in(url)).await
}

async fn database_from(template: &str) -> Database {
    static SERVER: Shared<SharedServer> = Shared::new();
    let server = shared::get(&SERVER, SharedServer::find).await;
    let name = crate::unique("test");
    let (server, outlives_us) = match server {
        SharedServer::Given(url) => (url.clone(), true),
        SharedServer::Started(server) => (url(server.port()), false),
    };
    let creating = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#);
    execute(&server, &creating).await.unwrap_or_else(|error| panic!("{error}"));
    Database { url: with_database(&server, &name), drop_from: outlives_us.then_some(server) }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(server) = self.drop_from.take() else { return };
        let name = name_in(&self.url).to_owned();
        // Dropping the database needs its own runtime, because the runtime of the test may be dropping this value.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(execute(&server, &format!(r#"DROP DATABASE "{name}" WITH (FORCE)"#))).ok()
        });
        // Best effort: an error must not fail the test, because the test did not start this server.
        let _ = dropping.join();
    }
}

/// The database that an address names.
fn name_in(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default()
}

enum SharedServer {
    Given(String),
    Started(server::Server<Postgres>),
}

impl SharedServer {
    async fn find() -> Result<Self, String> {
        if let Some(url) = shared::from_environment(VARIABLE) {
            execute(&url, "SELECT 1").await.map_err(|error| format!("{VARIABLE}: {error}"))?;
            server::announce("postgres", &format!("address from {VARIABLE}"));
            return Ok(Self::Given(url));
        }
        server::Server::start(|| Postgres { durable: false }).await.map(Self::Started)
    }
}

/// A server that only one test uses, durable as in production. The test may stop it and crash it.
#[derive(Debug)]
pub struct Server(server::Server<Postgres>);

impl Server {
    /// Starts a server with the role `app_user` and the empty database `network_events`.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start() -> Self {
        Self(server::Server::start(|| Postgres { durable: true }).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// The address of the database. It stays the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.0.port())
    }

    /// Stops the server cleanly, and closes its connections.
    pub async fn stop(&self) {
        self.0.stop().await;
    }

    /// Ends the server at once, like a crash. The next start recovers from the write-ahead log.
    pub async fn crash(&self) {
        self.0.crash().await;
    }

    /// Starts the server again with its data, and waits until it responds.
    pub async fn start_again(&self) {
        self.0.start_again().await;
    }

    /// Freezes the server: connections stay open, but the server does not respond.
    pub async fn pause(&self) {
        self.0.pause().await;
    }

    /// Ends [`Self::pause`].
    pub async fn resume(&self) {
        self.0.resume().await;
    }
}

#[derive(Debug)]
struct Postgres {
    durable: bool,
}

impl Postgres {
    fn options(&self) -> Vec<&'static str> {
        let mut options = vec!["-c", "shared_buffers=128MB", "-c", "max_connections=300"];
        if !self.durable {
            options.extend(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]);
        }
        options
    }
}

impl Recipe for Postgres {
    const NAME: &'static str = "postgres";
    const PORT: u16 = 5432;
    const SIGNALS: Signals = Signals { stop: "INT", crash: "QUIT" };

    fn container(&self, _port: u16) -> ContainerRequest<GenericImage> {
        GenericImage::new("postgres", "17")
            .with_env_var("POSTGRES_USER", "app_user")
            .with_env_var("POSTGRES_PASSWORD", "app_password")
            .with_env_var("POSTGRES_DB", "network_events")
            .with_cmd([&["postgres"], &*self.options()].concat())
    }

    fn native(&self, command: &mut Command) {
        command.args(self.options());
        // The server sorts text by language, like the image. So a query that relies on byte order fails if it does not say so.
        let locale = "--locale-provider=icu --icu-locale=en-US";
        let sync = if self.durable { "" } else { "--no-sync" };
        command.env("POSTGRES_INITDB_ARGS", format!("{locale} {sync}"));
        command.envs([
            ("POSTGRES_USER", "app_user"),
            ("POSTGRES_PASSWORD", "app_password"),
            ("POSTGRES_DB", "network_events"),
        ]);
    }

    async fn answers(&self, port: u16) -> Result<(), String> {
        execute(&url(port), "SELECT 1").await
    }
}

fn url(port: u16) -> String {
    format!("postgres://app_user:app_password@127.0.0.1:{port}/network_events")
}

/// `url` with the name of another database.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let authority = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{name}{query}", &address[..end])
}

async fn execute(url: &str, statement: &str) -> Result<(), String> {
    let executing = async {
        let options: sqlx::postgres::PgConnectOptions = url.parse()?;
        let mut connection: PgConnection = options.disable_statement_logging().connect().await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await
    };
    match tokio::time::timeout(Duration::from_secs(30), executing).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("no response within 30 s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn replaces_the_database_of_an_address() {
        assert_eq!(with_database("postgres://u:p@h:1/a?sslmode=disable", "b"), "postgres://u:p@h:1/b?sslmode=disable");
        assert_eq!(with_database("postgres://h/a", "b"), "postgres://h/b");
        assert_eq!(with_database("postgres://h", "b"), "postgres://h/b");
    }
}

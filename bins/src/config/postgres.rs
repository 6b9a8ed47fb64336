//! The databases that the services write to and the API reads from.

use std::time::Duration;

use netagg_api::ApiLimits;
use netagg_pg::{PgAddress, PgConfig, SslMode};

use crate::process::{EnvError, Variables};

/// The database that events and totals are kept in.
pub fn postgres(variables: &mut Variables, max_connections: u32, application_name: &str) -> PgConfig {
    let is_set = variables.has("DATABASE_URL");
    let parts = variables.unless(is_set, address_of_parts);
    let meaning = "postgres://user:password@host:port/database; overrides all these";
    let address = database_url(variables, "DATABASE_URL", meaning).unwrap_or(parts);
    let mut config = PgConfig::new(address);
    config.max_connections = max_connections;
    application_name.clone_into(&mut config.application_name);
    config
}

fn address_of_parts(variables: &mut Variables) -> PgAddress {
    let host = variables.text("POSTGRES_HOST", "localhost", "PostgreSQL's host, or the folder of its socket");
    let port = variables.port("POSTGRES_PORT", 5432, "its port");
    let user = variables.text("POSTGRES_USER", "app_user", "who connects");
    let password = variables.text("POSTGRES_PASSWORD", "app_password", "the password");
    let database = variables.text("POSTGRES_DB", "network_events", "the database");
    const MODES: [(&str, SslMode); 6] = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let mode = variables.choice("POSTGRES_SSLMODE", &MODES.map(|(name, _)| name), "TLS, as libpq names it");
    let ssl_mode = MODES.iter().find(|(name, _)| *name == mode).map_or(SslMode::Disable, |(_, mode)| *mode);
    PgAddress::new(&host, port, &user, &password, &database, ssl_mode)
}

fn database_url(variables: &mut Variables, name: &str, meaning: &str) -> Option<PgAddress> {
    let url = variables.optional_text(name, "", meaning)?;
    match url.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            variables.problem(EnvError::secret(name, "postgres://user:password@host:port/database?sslmode=…"));
            None
        }
    }
}

/// The database that the API reads: `DATABASE_READ_URL`, else the one of the others.
pub fn read_postgres(variables: &mut Variables, writing: &PgConfig) -> PgConfig {
    let url = database_url(variables, "DATABASE_READ_URL", "a replica for the API's reads; default: the same database");
    let address = url.unwrap_or_else(|| writing.address.clone());
    let mut config = writing.clone();
    config.address = address;
    config.max_connections = 16;
    // No request waits longer for its answer, and the server gives up a statement that no request waits for.
    config.statement_timeout = ApiLimits::default().request_timeout;
    config.client_check_interval = Some(Duration::from_millis(250));
    config
}

//! The databases that the services write to and the API reads from.

use std::time::Duration;

use netagg_api::ApiLimits;
use netagg_pg::{PgAddress, PgConfig, SslMode};

use crate::process::{EnvError, Variables};

/// Reads the address of the database that stores events and totals.
pub fn postgres(variables: &mut Variables, max_connections: u32, application_name: &str) -> PgConfig {
    variables.group("Database (PostgreSQL)");
    let is_set = variables.has("DATABASE_URL");
    let parts = variables.unless(is_set, address_of_parts);
    let meaning = "postgres://user:password@host:port/database, instead of all POSTGRES_* variables";
    let address = database_url(variables, "DATABASE_URL", meaning).unwrap_or(parts);
    let mut config = PgConfig::new(address);
    config.max_connections = max_connections;
    application_name.clone_into(&mut config.application_name);
    config
}

fn address_of_parts(variables: &mut Variables) -> PgAddress {
    let host = variables.text(
        "POSTGRES_HOST",
        "localhost",
        "host name or IP address of the PostgreSQL server, or the folder of its Unix socket",
    );
    let port = variables.port("POSTGRES_PORT", 5432, "TCP port of the PostgreSQL server");
    let user = variables.text("POSTGRES_USER", "app_user", "role that connects");
    let password = variables.text("POSTGRES_PASSWORD", "app_password", "password of this role");
    let database = variables.text("POSTGRES_DB", "network_events", "name of the database");
    const MODES: [(&str, SslMode); 6] = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let mode = variables.choice(
        "POSTGRES_SSLMODE",
        &MODES.map(|(name, _)| name),
        "whether the connection uses TLS, as in libpq",
    );
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

/// Reads the address of the database that the API reads: `DATABASE_READ_URL`, else the database of the services.
pub fn read_postgres(variables: &mut Variables, writing: &PgConfig) -> PgConfig {
    variables.group("Database (PostgreSQL)");
    let meaning = "database that the API reads, such as a replica; default: the same database";
    let url = database_url(variables, "DATABASE_READ_URL", meaning);
    let address = url.unwrap_or_else(|| writing.address.clone());
    let mut config = writing.clone();
    config.address = address;
    config.max_connections = 16;
    // A statement may take as long as a request. The server cancels a statement when its client is gone.
    config.statement_timeout = ApiLimits::default().request_timeout;
    config.client_check_interval = Some(Duration::from_millis(250));
    config
}

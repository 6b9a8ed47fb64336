//! Where the server is and how long to wait for it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// The default of [`PgConfig::max_insert_rows`].
pub(super) const MAX_INSERT_ROWS: usize = 1_000;

/// How connections are made, and the limits of their work.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PgConfig {
    /// The database, and the user and password to connect with. Default: [`PgAddress::default`].
    pub address: PgAddress,
    /// The maximum number of connections. Each write of a batch takes one connection, and so does each read of a page or a
    /// total. Default: 10.
    pub max_connections: u32,
    /// How long a call waits for a connection. The call fails at once if the server refuses new connections. Default: 5 s.
    pub acquire_timeout: Duration,
    /// How long a call may take in total. This also bounds a call whose server has vanished without closing the connection.
    /// After the timeout, the connection is closed. Default: 60 s.
    pub call_timeout: Duration,
    /// How long the server works on one statement (`statement_timeout`). Default: 30 s.
    pub statement_timeout: Duration,
    /// How long the server lets a statement wait for a lock (`lock_timeout`). Default: 10 s.
    pub lock_timeout: Duration,
    /// How long the server keeps a transaction that waits for its next statement (`idle_in_transaction_session_timeout`).
    /// Default: 30 s.
    pub idle_in_transaction_timeout: Duration,
    /// How often the server checks, while it runs a statement, whether the client is still connected
    /// (`client_connection_check_interval`). If the client has dropped the call, the server then cancels the statement.
    /// With `None` the server finishes the statement. Default: `None`.
    pub client_check_interval: Option<Duration>,
    /// A batch with more new items than this is written with `COPY`, a smaller batch with `INSERT`. `INSERT` costs the
    /// server more per row, but it is one message. `COPY` needs several messages. On TCP, the last message waits up to
    /// 40 ms, because the driver leaves Nagle's algorithm on. Default: 1,000.
    pub max_insert_rows: usize,
    /// The name of the connections in `pg_stat_activity`. Default: `netagg`.
    pub application_name: String,
}

impl Default for PgConfig {
    /// [`PgAddress::default`], ten connections, and timeouts that a healthy server never reaches.
    fn default() -> Self {
        Self {
            address: PgAddress::default(),
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(60),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(30),
            client_check_interval: None,
            max_insert_rows: MAX_INSERT_ROWS,
            application_name: "netagg".to_owned(),
        }
    }
}

impl PgConfig {
    /// The default, with the database at `address`.
    pub fn new(address: PgAddress) -> Self {
        Self { address, ..Self::default() }
    }

    /// The options of the connections that [`Postgres::new`](crate::Postgres::new) makes, for a pool of your own
    /// ([`Postgres::from_pool`](crate::Postgres::from_pool)).
    pub fn connect_options(&self) -> PgConnectOptions {
        if matches!(self.address.0.get_ssl_mode(), PgSslMode::VerifyCa) && CryptoProvider::get_default().is_none() {
            // Only for this mode, the driver takes the cryptography provider of the process. It panics if the program has
            // several providers and has chosen none. If the program has a single provider, rustls would install it by
            // itself. The result is ignored, because another thread may have installed a provider first.
            let _ = ring::default_provider().install_default();
        }
        let millis = |timeout: Duration| timeout.as_millis().to_string();
        let client_check =
            self.client_check_interval.map(|interval| ("client_connection_check_interval", millis(interval)));
        self.address
            .0
            .clone()
            .application_name(&self.application_name)
            .options([
                ("statement_timeout", millis(self.statement_timeout)),
                ("lock_timeout", millis(self.lock_timeout)),
                ("idle_in_transaction_session_timeout", millis(self.idle_in_transaction_timeout)),
                // A generic plan locks every partition and cannot prune any partition.
                ("plan_cache_mode", "force_custom_plan".to_owned()),
            ])
            .options(client_check)
            .disable_statement_logging()
    }
}

/// A database on a server, and the user and password to connect with.
///
/// It prints as `host:port/database`, never with the password.
#[derive(Clone)]
pub struct PgAddress(PgConnectOptions);

impl PgAddress {
    /// The database `database` on the server at `host` and `port`.
    ///
    /// A `host` that begins with `/` is the folder of a Unix socket.
    ///
    /// With [`PgSslMode::VerifyCa`] the driver uses the provider of cryptography that is installed for the process; if there is
    /// none, `ring` is installed. The other modes use `ring` and install nothing.
    pub fn new(host: &str, port: u16, user: &str, password: &str, database: &str, ssl_mode: PgSslMode) -> Self {
        let options = PgConnectOptions::new_without_pgpass();
        let options = if host.starts_with('/') { options.socket(host) } else { options.host(host) };
        Self(options.port(port).username(user).password(password).database(database).ssl_mode(ssl_mode))
    }
}

impl From<&PgConnectOptions> for PgAddress {
    fn from(options: &PgConnectOptions) -> Self {
        Self(options.clone())
    }
}

impl Default for PgAddress {
    /// The database `network_events` on this machine, without TLS.
    fn default() -> Self {
        Self::new("localhost", 5432, "app_user", "app_password", "network_events", PgSslMode::Disable)
    }
}

impl FromStr for PgAddress {
    type Err = InvalidAddress;

    /// Reads `postgres://user:password@host:port/database?sslmode=…`.
    fn from_str(url: &str) -> Result<Self, InvalidAddress> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(InvalidAddress);
        }
        // The cause is left out: it may quote parts of the address.
        url.parse().map(Self).map_err(|_| InvalidAddress)
    }
}

impl fmt::Display for PgAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.0;
        match options.get_socket() {
            Some(socket) => write!(f, "{}", socket.display())?,
            None => f.write_str(options.get_host())?,
        }
        write!(f, ":{}/{}", options.get_port(), options.get_database().unwrap_or(options.get_username()))
    }
}

impl fmt::Debug for PgAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgAddress({self})")
    }
}

/// The error for a text that is not the address of a PostgreSQL database. It shows the accepted form, and never the text
/// itself, which may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the URL of a PostgreSQL database: postgres://user:password@host:port/database?sslmode=… is accepted")]
pub struct InvalidAddress;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_without_its_password() {
        for (url, printed) in [
            ("postgres://me:s3cret@db.example:6000/events?sslmode=require", "db.example:6000/events"),
            ("postgresql://me:s3cret@db.example", "db.example:5432/me"),
        ] {
            let address: PgAddress = url.parse().expect("valid");
            assert_eq!(address.to_string(), printed);
            let debug = format!("{:?}", PgConfig::new(address));
            assert!(debug.contains(printed) && !debug.contains("s3cret"), "{debug}");
        }
        assert_eq!(PgAddress::default().to_string(), "localhost:5432/network_events");
    }

    #[test]
    fn an_invalid_address_is_refused_without_being_quoted() {
        for url in
            ["", "localhost", "mysql://me:s3cret@h/d", "postgres://me:s3cret@h:port/d", "postgres://me@h/d?sslmode=x"]
        {
            let error = url.parse::<PgAddress>().expect_err(url);
            assert!(!error.to_string().contains("s3cret"));
        }
    }
}

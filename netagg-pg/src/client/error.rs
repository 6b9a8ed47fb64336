//! The meaning of PostgreSQL's errors for netagg: whether waiting helps, or an operator has to act.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use netagg_core::{Error, Month};

use super::config::PgAddress;

/// The dependency's name in errors.
const POSTGRES: &str = "postgres";

/// The reason when a statement names a table or a column that does not exist; `check_schema` reports the version.
const NO_SCHEMA: &str = "the schema is missing, or it is of another version: apply the migrations";

pub(crate) const UNIQUE_VIOLATION: &str = "23505";
/// Also "no partition of relation found for row".
pub(crate) const CHECK_VIOLATION: &str = "23514";
const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
pub(crate) const DUPLICATE_TABLE: &str = "42P07";
pub(crate) const UNDEFINED_TABLE: &str = "42P01";

/// Why a call of an adapter failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PgError {
    /// An error of the driver.
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    /// An attempt to connect has failed.
    #[error("no connection to {address}: {}", text_of(.source))]
    NotConnected { address: String, source: Arc<sqlx::Error> },
    /// The pool gave no connection in time, and the driver gives no reason.
    #[error("no connection to {address} within {limit:?}: it does not answer, or all {max} connections are in use")]
    NoConnection { address: String, limit: Duration, max: u32 },
    /// The call took too long. Its connection was closed.
    #[error("no answer from {address} within {limit:?}")]
    CallTimedOut { address: String, limit: Duration },
    /// The application's [`StoreHook`](crate::StoreHook) has failed.
    #[error("the application's hook failed: {}", text_of(.0))]
    Hook(#[source] sqlx::Error),
    /// An operator has to act.
    #[error("{0}")]
    NotSetUp(String),
    /// Another process or another batch blocks the call for now.
    #[error("{0}")]
    Busy(String),
    /// Tables are distributed over several servers.
    #[error("the tables {tables} are distributed over several servers")]
    Distributed { tables: String },
    /// The database has another mode or other event limits than the service.
    #[error("{0}")]
    OtherSettings(String),
    /// Events of the call are in dropped months.
    #[error("the months up to {through} are dropped")]
    MonthsDropped { through: Month },
    /// A stored value that netagg never writes.
    #[error("{value} in the database: {source}")]
    Unreadable {
        value: &'static str,
        #[source]
        source: netagg_core::BoxError,
    },
}

impl PgError {
    pub(crate) fn unreadable(value: &'static str, source: impl Into<netagg_core::BoxError>) -> Self {
        Self::Unreadable { value, source: source.into() }
    }

    /// The error `source` of an attempt to connect to `address`.
    pub(crate) fn not_connected(address: &PgAddress, source: Arc<sqlx::Error>) -> Self {
        Self::NotConnected { address: address.to_string(), source }
    }

    /// Whether a table could not be made or attached for a reason that concerns only this table: another object is in its
    /// place, or the role lacks a privilege. Other tables may still be made, and waiting does not help.
    pub(crate) fn is_of_one_table(&self) -> bool {
        match self {
            Self::NotSetUp(_) => true,
            Self::Sqlx(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default();
                code.starts_with("42") || code == CHECK_VIOLATION || code == OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            _ => false,
        }
    }

    /// The error as text for an operator. For an error of the server, this is its message and SQLSTATE.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Sqlx(error) => text_of(error),
            error => error.to_string(),
        }
    }

    /// Whether the server returned this SQLSTATE.
    pub(crate) fn is(&self, code: &str) -> bool {
        matches!(self, Self::Sqlx(sqlx::Error::Database(error)) if error.code().as_deref() == Some(code))
    }
}

/// The text of an error of the driver. For an error of the server, this is its message and SQLSTATE, without the line of
/// the server's source code that the driver adds.
fn text_of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => match error.code() {
            Some(code) => format!("{} (SQLSTATE {code})", error.message()),
            None => error.message().to_owned(),
        },
        sqlx::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// An error of the driver that displays as [`text_of`]. It keeps the driver's error for inspection, but does not return it
/// as its source, because the text would then be reported twice.
#[derive(Debug)]
struct DriverError {
    address: Option<String>,
    error: Arc<sqlx::Error>,
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = &self.address {
            write!(f, "no connection to {address}: ")?;
        }
        f.write_str(&text_of(&self.error))
    }
}

impl std::error::Error for DriverError {}

/// Translates `error` for the caller of a port.
pub(crate) fn to_core(error: PgError) -> Error {
    let (address, error) = match error {
        PgError::Sqlx(error) => (None, Arc::new(error)),
        PgError::NotConnected { address, source } => (Some(address), source),
        PgError::NotSetUp(reason) => return Error::NotSetUp { dependency: POSTGRES, reason, source: None },
        PgError::MonthsDropped { through } => return Error::MonthsDropped { through },
        PgError::OtherSettings(reason) => return Error::Unsupported { dependency: POSTGRES, reason },
        PgError::Distributed { .. } => {
            let reason = format!(
                "{error} (see pg_dist_partition), so writes, audits and repairs would not be exact; \
                 undistribute them (SELECT undistribute_table('events_raw') and so on), or use another database"
            );
            return Error::Unsupported { dependency: POSTGRES, reason };
        }
        PgError::NoConnection { .. } | PgError::CallTimedOut { .. } | PgError::Busy(_) => {
            return Error::unavailable(POSTGRES, error);
        }
        PgError::Hook(ref cause) if meaning(cause) == Meaning::Unavailable => {
            return Error::unavailable(POSTGRES, error);
        }
        // Never `Refused`: the events are valid, and must not become dead letters.
        PgError::Hook(_) | PgError::Unreadable { .. } => return Error::internal(POSTGRES, error),
    };
    let meaning = meaning(&error);
    let error = DriverError { address, error };
    match meaning {
        Meaning::Unavailable => Error::unavailable(POSTGRES, error),
        Meaning::NoSchema => Error::NotSetUp { dependency: POSTGRES, reason: NO_SCHEMA.to_owned(), source: None },
        Meaning::NotSetUp(remedy) => {
            let reason = format!("{error}: {remedy}");
            Error::NotSetUp { dependency: POSTGRES, reason, source: Some(error.into()) }
        }
        Meaning::Refused => Error::Refused { dependency: POSTGRES, source: error.into() },
        Meaning::Bug => Error::internal(POSTGRES, error),
    }
}

#[derive(Debug, PartialEq)]
enum Meaning {
    Unavailable,
    /// A statement names a table, column or function that only another version of the schema has. The error of the server
    /// alone would not tell an operator the cause.
    NoSchema,
    NotSetUp(&'static str),
    Refused,
    Bug,
}

fn meaning(error: &sqlx::Error) -> Meaning {
    match error {
        sqlx::Error::Database(error) => meaning_of_code(error.code().as_deref().unwrap_or_default()),
        // The driver reports a protocol error if a connection breaks in the middle of a message.
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Meaning::Unavailable,
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => {
            Meaning::NotSetUp("check the SSL mode and the certificates")
        }
        _ => Meaning::Bug,
    }
}

/// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn meaning_of_code(code: &str) -> Meaning {
    match code {
        // serialization failure, deadlock, lock or statement timeout, the server going down or coming up,
        // a connection that was idle in a transaction, a standby that is not promoted yet
        "40001" | "40P01" | "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25006" => {
            Meaning::Unavailable
        }
        UNDEFINED_TABLE | "42704" | "42703" | "42883" => Meaning::NoSchema,
        "3F000" => Meaning::NotSetUp("create the PostgreSQL schema that search_path names"),
        "3D000" | "57P04" => Meaning::NotSetUp("create the database, or name another one"),
        "42501" => Meaning::NotSetUp("grant the role the missing privilege"),
        "23502" | CHECK_VIOLATION => Meaning::Refused,
        _ => match code.get(..2) {
            Some("08" | "53" | "58") => Meaning::Unavailable,
            Some("28") => Meaning::NotSetUp("check user and password"),
            Some("22") => Meaning::Refused,
            _ => Meaning::Bug,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_grouped_by_their_remedy() {
        for (codes, expected) in [
            (&["08006", "40001", "40P01", "53300", "53100", "55P03", "57014", "57P01", "57P03", "58030"][..], "wait"),
            (&["28P01", "28000", "3D000", "3F000", "42501", "42P01", "42703"], "act"),
            (&["22P05", "22003", "22021", "23502", "23514"], "refused"),
            (&["42601", "21000", "XX000", ""], "bug"),
        ] {
            for code in codes {
                let found = match meaning_of_code(code) {
                    Meaning::Unavailable => "wait",
                    Meaning::NoSchema | Meaning::NotSetUp(_) => "act",
                    Meaning::Refused => "refused",
                    Meaning::Bug => "bug",
                };
                assert_eq!(found, expected, "{code}");
            }
        }
    }
}

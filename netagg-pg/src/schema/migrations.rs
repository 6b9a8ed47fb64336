//! The versions of the schema.

use chrono::{DateTime, Utc};
use netagg_core::Error;
use sqlx::FromRow;
use sqlx::migrate::{MigrateError, Migrator};

use crate::client::Postgres;
use crate::client::error::{self, PgError, UNDEFINED_TABLE};

static MIGRATOR: Migrator = sqlx::migrate!();

/// Applies and reverts versions of the schema. Several processes may do this at once: they take turns.
#[derive(Clone, Debug)]
pub struct Migrations {
    postgres: Postgres,
}

/// One version of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaVersion {
    /// The number of the version.
    pub version: i64,
    /// A short description of its changes.
    pub description: String,
    /// When it was applied; `None` if it is not applied.
    pub applied_at: Option<DateTime<Utc>>,
}

impl Postgres {
    /// Returns the handle to the versions of the schema.
    pub fn migrations(&self) -> Migrations {
        Migrations { postgres: self.clone() }
    }

    /// Checks that the schema has the version that this crate works with.
    ///
    /// # Errors
    /// [`Error::NotSetUp`] if the schema is missing, older or newer. Retryable errors while the server does not answer.
    pub async fn check_schema(&self) -> Result<(), Error> {
        self.migrations().check().await
    }
}

impl Migrations {
    /// Applies every missing version, each in a transaction.
    ///
    /// # Errors
    /// Versions applied before the error stay. [`Error::NotSetUp`] if the database has a version unknown to this crate.
    pub async fn up(&self) -> Result<(), Error> {
        self.migrate(Direction::Up).await
    }

    /// All versions in order: the versions of this crate, and versions that only the database has.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn status(&self) -> Result<Vec<SchemaVersion>, Error> {
        let mut versions = self.applied().await?;
        for known in MIGRATOR.iter().filter(|migration| migration.migration_type.is_up_migration()) {
            if versions.iter().all(|applied| applied.version != known.version) {
                let description = known.description.to_string();
                versions.push(SchemaVersion { version: known.version, description, applied_at: None });
            }
        }
        versions.sort_by_key(|version| version.version);
        Ok(versions)
    }

    /// Reverts the last version. The data in its tables is lost.
    ///
    /// # Errors
    /// As [`Migrations::up`].
    pub async fn down_one(&self) -> Result<(), Error> {
        match &*self.applied().await? {
            [] => Ok(()),
            [.., before, _] => self.down_to(before.version).await,
            [_] => self.down_all().await,
        }
    }

    /// Reverts every version after `version`, the last version first. The data in their tables is lost.
    ///
    /// # Errors
    /// As [`Migrations::up`].
    pub async fn down_to(&self, version: i64) -> Result<(), Error> {
        self.migrate(Direction::DownTo(version)).await
    }

    /// Reverts every version. All data is lost.
    ///
    /// # Errors
    /// As [`Migrations::up`].
    pub async fn down_all(&self) -> Result<(), Error> {
        self.down_to(0).await
    }

    async fn check(&self) -> Result<(), Error> {
        let latest = latest();
        let reason = match self.applied().await?.last().map(|last| last.version) {
            Some(version) if version == latest => return Ok(()),
            None => "the schema is missing: apply the migrations".to_owned(),
            Some(version) if version < latest => {
                format!("the schema is at version {version} of {latest}: apply the migrations")
            }
            Some(version) => {
                format!("the schema is at version {version}, this program knows {latest}: run a newer program")
            }
        };
        Err(error::to_core(PgError::NotSetUp(reason)))
    }

    async fn applied(&self) -> Result<Vec<SchemaVersion>, Error> {
        const APPLIED: &str = "SELECT version, description, installed_on AS applied_at FROM _sqlx_migrations WHERE success ORDER BY version";
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let rows: Result<Vec<AppliedRow>, _> = sqlx::query_as(APPLIED).fetch_all(&mut *session).await;
                let rows = match rows.map_err(PgError::from) {
                    Err(error) if error.is(UNDEFINED_TABLE) => Vec::new(),
                    rows => rows?,
                };
                session.release();
                Ok(rows.into_iter().map(SchemaVersion::from).collect())
            })
            .await
    }

    /// Migrates on a separate connection without time limits: a migration may wait for another migrator, and rewrite tables.
    /// The connection is closed in any case, which also frees the migrator's lock after an error.
    async fn migrate(&self, direction: Direction) -> Result<(), Error> {
        // Connect without a pool first: the migrator's pool would retry until its timeout, and give no reason.
        let mut connection = self.postgres.unlimited_connection().await.map_err(error::to_core)?;
        self.postgres.refuse_distribution(&mut connection).await.map_err(error::to_core)?;
        drop(connection);
        let pool = self.postgres.unlimited_pool();
        let result = match direction {
            Direction::Up => MIGRATOR.run(&pool).await,
            Direction::DownTo(version) => MIGRATOR.undo(&pool, version).await,
        };
        pool.close().await;
        result.map_err(explain).map_err(error::to_core)
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    DownTo(i64),
}

/// A version that the database has.
#[derive(Debug, FromRow)]
struct AppliedRow {
    version: i64,
    description: String,
    applied_at: DateTime<Utc>,
}

impl From<AppliedRow> for SchemaVersion {
    fn from(row: AppliedRow) -> Self {
        Self { version: row.version, description: row.description, applied_at: Some(row.applied_at) }
    }
}

/// The version that this crate works with.
fn latest() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

fn explain(error: MigrateError) -> PgError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => PgError::Sqlx(error),
        MigrateError::VersionMissing(version) => {
            PgError::NotSetUp(format!("the schema is at version {version}, this program knows {}", latest()))
        }
        MigrateError::VersionMismatch(version) => PgError::NotSetUp(format!(
            "version {version} of the schema differs from the version that this program knows"
        )),
        error => PgError::Sqlx(sqlx::Error::Migrate(Box::new(error))),
    }
}

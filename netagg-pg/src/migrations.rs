//! The schema's versions.

use std::borrow::Cow;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use netagg_core::Error;
use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::error::{self, PgError, UNDEFINED_TABLE};
use crate::postgres::Postgres;

/// Version, description, up, down.
const MIGRATIONS: [(i64, &str, &str, &str); 7] = [
    (1, "events", include_str!("../migrations/0001_events.up.sql"), include_str!("../migrations/0001_events.down.sql")),
    (
        2,
        "aggregates",
        include_str!("../migrations/0002_aggregates.up.sql"),
        include_str!("../migrations/0002_aggregates.down.sql"),
    ),
    (
        3,
        "progress and settings",
        include_str!("../migrations/0003_progress_and_settings.up.sql"),
        include_str!("../migrations/0003_progress_and_settings.down.sql"),
    ),
    (
        4,
        "reconciliation",
        include_str!("../migrations/0004_reconciliation.up.sql"),
        include_str!("../migrations/0004_reconciliation.down.sql"),
    ),
    (
        5,
        "api keys",
        include_str!("../migrations/0005_api_keys.up.sql"),
        include_str!("../migrations/0005_api_keys.down.sql"),
    ),
    (
        6,
        "completeness",
        include_str!("../migrations/0006_completeness.up.sql"),
        include_str!("../migrations/0006_completeness.down.sql"),
    ),
    (
        7,
        "events set aside",
        include_str!("../migrations/0007_events_set_aside.up.sql"),
        include_str!("../migrations/0007_events_set_aside.down.sql"),
    ),
];

/// The version this crate works with.
const LATEST: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let migrations = MIGRATIONS.into_iter().flat_map(|(version, description, up, down)| {
        let migration = |kind, sql: &'static str| {
            Migration::new(version, Cow::Borrowed(description), kind, sql.into_sql_str(), false)
        };
        [migration(MigrationType::ReversibleUp, up), migration(MigrationType::ReversibleDown, down)]
    });
    Migrator::with_migrations(migrations.collect())
});

/// Brings the schema to a version. Several may do so at once, from anywhere: they take turns.
#[derive(Clone, Debug)]
pub struct Migrations {
    postgres: Postgres,
}

/// One version of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaVersion {
    /// Its number.
    pub version: i64,
    /// What it brings.
    pub description: String,
    /// When it was applied; `None` if it isn't.
    pub applied_at: Option<DateTime<Utc>>,
}

impl Migrations {
    pub(crate) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Applies every version that is missing, each in a transaction.
    ///
    /// # Errors
    /// What was applied before stays. [`Error::NotSetUp`] when the database has a version this crate doesn't know.
    pub async fn up(&self) -> Result<(), Error> {
        self.migrate(Way::Up).await
    }

    /// Every version there is, in order: those of this crate, and those in the database that it doesn't know.
    ///
    /// # Errors
    /// Retryable while the database cannot be read.
    pub async fn status(&self) -> Result<Vec<SchemaVersion>, Error> {
        let mut versions = self.applied().await?;
        for (version, description, ..) in MIGRATIONS {
            if versions.iter().all(|applied| applied.version != version) {
                versions.push(SchemaVersion { version, description: description.to_owned(), applied_at: None });
            }
        }
        versions.sort_by_key(|version| version.version);
        Ok(versions)
    }

    /// Takes the last version back, and what is stored in it.
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

    /// Takes every version after `version` back, the last one first, and what is stored in them.
    ///
    /// # Errors
    /// As [`Migrations::up`].
    pub async fn down_to(&self, version: i64) -> Result<(), Error> {
        self.migrate(Way::DownTo(version)).await
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// As [`Migrations::up`].
    pub async fn down_all(&self) -> Result<(), Error> {
        self.down_to(0).await
    }

    /// Checks that the schema is at the version of this crate.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let reason = match self.applied().await?.last().map(|last| last.version) {
            Some(LATEST) => return Ok(()),
            None => "the schema is missing: run `netagg migrate up`".to_owned(),
            Some(version) if version < LATEST => {
                format!("the schema is at version {version} of {LATEST}: run `netagg migrate up`")
            }
            Some(version) => {
                format!("the schema is at version {version}, this program knows {LATEST}: run a newer program")
            }
        };
        Err(error::to_core(PgError::NotSetUp(reason)))
    }

    async fn applied(&self) -> Result<Vec<SchemaVersion>, Error> {
        const APPLIED: &str =
            "SELECT version, description, installed_on FROM _sqlx_migrations WHERE success ORDER BY version";
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let rows: Result<Vec<(i64, String, DateTime<Utc>)>, _> =
                    sqlx::query_as(APPLIED).fetch_all(&mut *session).await;
                let rows = match rows.map_err(PgError::from) {
                    Err(error) if error.is(UNDEFINED_TABLE) => Vec::new(),
                    rows => rows?,
                };
                session.release();
                let version = |(version, description, applied_at)| SchemaVersion {
                    version,
                    description,
                    applied_at: Some(applied_at),
                };
                Ok(rows.into_iter().map(version).collect())
            })
            .await
    }

    /// Migrates on a connection of its own, without the limits of calls: it may wait for another migrator, and rewrite
    /// tables. It is closed in any case, and with it goes the migrator's lock, which an error leaves behind.
    async fn migrate(&self, way: Way) -> Result<(), Error> {
        // The pool that the migrator wants would try again and again, and give no reason.
        let mut connection = self.postgres.unlimited_connection().await.map_err(error::to_core)?;
        self.postgres.refuse_distribution(&mut connection).await.map_err(error::to_core)?;
        drop(connection);
        let pool = self.postgres.unlimited_pool();
        let result = match way {
            Way::Up => MIGRATOR.run(&pool).await,
            Way::DownTo(version) => MIGRATOR.undo(&pool, version).await,
        };
        pool.close().await;
        result.map_err(explain).map_err(error::to_core)
    }
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    DownTo(i64),
}

fn explain(error: MigrateError) -> PgError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => PgError::Sqlx(error),
        MigrateError::VersionMissing(version) => {
            PgError::NotSetUp(format!("the schema is at version {version}, this program knows {LATEST}"))
        }
        MigrateError::VersionMismatch(version) => {
            PgError::NotSetUp(format!("version {version} of the schema is not the one this program knows"))
        }
        error => PgError::Sqlx(sqlx::Error::Migrate(Box::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_on_disk_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut on_disk: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        on_disk.sort();
        let embedded: Vec<String> = MIGRATIONS
            .into_iter()
            .flat_map(|(version, description, ..)| {
                ["down", "up"].map(|way| format!("{version:04}_{}.{way}.sql", description.replace(' ', "_")))
            })
            .collect();
        assert_eq!(on_disk, embedded);
    }
}

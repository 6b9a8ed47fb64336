//! `netagg migrate`: the schema of the database.

use std::process::ExitCode;

use clap::Subcommand;
use netagg_pg::{PgConfig, Postgres};

use crate::process::{Variables, outln};
use crate::run_program::run_command;
use crate::tables::table;
use crate::{Failure, config};

/// The commands for the schema.
#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Apply the missing versions; several processes may do it at once
    Up,
    /// List all versions, and when each was applied; the exit code is 1 if a version is not applied
    Status,
    /// Revert the last version, AND DELETE ALL DATA IN IT
    Down {
        /// Revert all versions
        #[arg(long, conflicts_with = "to")]
        all: bool,
        /// Revert every version after this version
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
        to: Option<i64>,
    },
}

impl MigrateCommand {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| config::postgres(variables, 2, "netagg-migrate");
        run_command(configure, async |postgres, _| migrate(self, postgres).await)
    }
}

/// Changes the schema if the command says so, and prints its versions.
///
/// # Errors
/// When the database cannot be reached or rejects the change.
async fn migrate(command: MigrateCommand, config: PgConfig) -> Result<ExitCode, Failure> {
    let migrations = Postgres::new(config).migrations();
    match command {
        MigrateCommand::Up => migrations.up().await?,
        MigrateCommand::Status => {}
        MigrateCommand::Down { all: true, .. } => migrations.down_all().await?,
        MigrateCommand::Down { to: Some(version), .. } => {
            let known: Vec<_> = migrations.status().await?.iter().map(|known| known.version).collect();
            if version != 0 && !known.contains(&version) {
                let accepted = known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(Failure::Usage(format!("--to {version}: no such version; accepted: 0, {accepted}")));
            }
            migrations.down_to(version).await?;
        }
        MigrateCommand::Down { .. } => migrations.down_one().await?,
    }
    let versions = migrations.status().await?;
    let mut table = table(["version", "description", "applied"]);
    for version in &versions {
        let applied = version.applied_at.map_or("-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        table.add_row([version.version.to_string(), version.description.clone(), applied]);
    }
    outln!("{table}");
    let is_missing_version = versions.iter().any(|version| version.applied_at.is_none());
    let is_status = matches!(command, MigrateCommand::Status);
    Ok(if is_status && is_missing_version { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

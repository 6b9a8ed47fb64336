//! The command line of `netagg`: its arguments, and the job of each command.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

#[cfg(feature = "services")]
use crate::admin::{LimitsCommand, MigrateCommand, ModeCommand, PartitionsCommand, TopicCommand};
#[cfg(feature = "services")]
use crate::audit::Audit;
use crate::config;
#[cfg(feature = "services")]
use crate::dead_letters::DlqCommand;
use crate::demo::Demo;
#[cfg(feature = "services")]
use crate::import::Import;
#[cfg(feature = "services")]
use crate::keys::KeysCommand;
use crate::process::{LogDefaults, Variables, arguments};
#[cfg(feature = "services")]
use crate::rebuild::Rebuild;

#[derive(Debug, Parser)]
#[command(
    name = "netagg",
    version,
    about = "Exact totals over mobile-network usage events: demonstration and administration"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole pipeline in this process, without any server, and verify its totals
    Demo(Demo),
    #[cfg(feature = "services")]
    /// Create, inspect or revert the database schema
    #[command(subcommand)]
    Migrate(MigrateCommand),
    #[cfg(feature = "services")]
    /// Create, list or describe topics
    #[command(subcommand)]
    Topic(TopicCommand),
    #[cfg(feature = "services")]
    /// Create, list or drop the partitions of events_raw
    #[command(subcommand)]
    Partitions(PartitionsCommand),
    #[cfg(feature = "services")]
    /// Show or change the limits for the age of events
    #[command(subcommand)]
    Limits(LimitsCommand),
    #[cfg(feature = "services")]
    /// Show or switch the mode: separate (an aggregator counts the events) or combined (the ingestor counts them)
    #[command(subcommand)]
    Mode(ModeCommand),
    #[cfg(feature = "services")]
    /// Create, list or revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    #[cfg(feature = "services")]
    /// List, show, count or replay dead letters
    #[command(subcommand)]
    Dlq(DlqCommand),
    #[cfg(feature = "services")]
    /// Publish the events of a file with one JSON object per line to KAFKA_TOPIC
    ///
    /// Each valid line is published unchanged, with its user as the key. The time of the import counts as the time of
    /// receipt. Invalid lines are left out: stderr names them with their line numbers, and the exit code is 1. You may
    /// repeat an import, also after an interruption: an event that is published twice is stored once.
    Import(Import),
    #[cfg(feature = "services")]
    /// Compare agg_day and agg_month with events_raw, and account for every record of the topic
    ///
    /// The result is exact, also while the services run and lag. The exit code is 0 if everything is equal, 1 if something
    /// differs, and 2 if the audit could not tell.
    Audit(Audit),
    #[cfg(feature = "services")]
    /// Recompute the totals of days from events_raw, while the services run
    ///
    /// You may repeat a rebuild, also after an interruption. The exit code is 1 if a day was skipped.
    Rebuild(Rebuild),
}

/// Reads the arguments and runs the command.
pub fn run() -> ExitCode {
    let mut variables = Variables::default();
    config::declare_all_of_commands(&mut variables);
    LogDefaults::COMMAND.describe(&mut variables);
    let cli = match arguments::<Cli>(Cli::command().after_help(variables.help())) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Demo(demo) => demo.run(),
        #[cfg(feature = "services")]
        Command::Migrate(command) => command.run(),
        #[cfg(feature = "services")]
        Command::Topic(command) => command.run(),
        #[cfg(feature = "services")]
        Command::Partitions(command) => command.run(),
        #[cfg(feature = "services")]
        Command::Limits(command) => command.run(),
        #[cfg(feature = "services")]
        Command::Mode(command) => command.run(),
        #[cfg(feature = "services")]
        Command::Keys(command) => command.run(),
        #[cfg(feature = "services")]
        Command::Dlq(command) => command.run(),
        #[cfg(feature = "services")]
        Command::Import(import) => import.run(),
        #[cfg(feature = "services")]
        Command::Audit(audit) => audit.run(),
        #[cfg(feature = "services")]
        Command::Rebuild(rebuild) => rebuild.run(),
    }
}

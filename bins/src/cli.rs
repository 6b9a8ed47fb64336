//! netagg's command: its arguments, and which job each command is.

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
    /// Run the whole pipeline in this process, with nothing installed, and verify its totals
    Demo(Demo),
    #[cfg(feature = "services")]
    /// Make, inspect or take back the database schema
    #[command(subcommand)]
    Migrate(MigrateCommand),
    #[cfg(feature = "services")]
    /// Make or look at the topics
    #[command(subcommand)]
    Topic(TopicCommand),
    #[cfg(feature = "services")]
    /// Make, list or drop the partitions of events_raw
    #[command(subcommand)]
    Partitions(PartitionsCommand),
    #[cfg(feature = "services")]
    /// Show or change how old and how new events may be
    #[command(subcommand)]
    Limits(LimitsCommand),
    #[cfg(feature = "services")]
    /// Show or switch whether the ingestor also counts the events
    #[command(subcommand)]
    Mode(ModeCommand),
    #[cfg(feature = "services")]
    /// Make, list or revoke the keys that callers of the API show
    #[command(subcommand)]
    Keys(KeysCommand),
    #[cfg(feature = "services")]
    /// Look at the dead letters, or send them again
    #[command(subcommand)]
    Dlq(DlqCommand),
    #[cfg(feature = "services")]
    /// Publish the events of a file of one JSON object a line to KAFKA_TOPIC
    ///
    /// Each valid line is published as it stands, keyed by its user, and judged as received now. Invalid ones are named
    /// on stderr with their numbers and left out, and the exit code is 1. An import may be repeated, also after it was
    /// interrupted: events that come twice are stored once.
    Import(Import),
    #[cfg(feature = "services")]
    /// Compare agg_day and agg_month with events_raw, and account for every record of the topic
    ///
    /// Exact while the services run and lag. Exit code 0 if all is equal, 1 if something differs, 2 if that could not be
    /// told.
    Audit(Audit),
    #[cfg(feature = "services")]
    /// Recompute the totals of days from events_raw, while the services run
    ///
    /// It may be repeated, also after it was interrupted. Exit code 1 if a day had to be left as it is.
    Rebuild(Rebuild),
}

/// Reads the arguments and does what they say.
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

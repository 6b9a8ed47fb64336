//! netagg's command: a demonstration without any service, and the administration of a real installation.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use netagg::admin::{self, LimitsCommand, MigrateCommand, PartitionsCommand, TopicCommand};
use netagg::config::{self, ApiAddresses, Groups, Kafka};
use netagg::demo::{self, DemoConfig, DemoEvents};
use netagg::{LogDefaults, Variables, run_with};

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
    Demo {
        /// Keep the API up on API_HTTP_PORT and API_GRPC_PORT afterwards, with events flowing
        #[arg(long)]
        serve: bool,
        /// How many events to generate
        #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
        events: u64,
        /// Take events from a file of one JSON object a line instead, or from stdin (-)
        #[arg(long, value_name = "FILE", conflicts_with = "events")]
        input: Option<PathBuf>,
    },
    /// Make, inspect or take back the database schema
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Make or look at the topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Make or list the partitions of events_raw
    #[command(subcommand)]
    Partitions(PartitionsCommand),
    /// Show or change how old and how new events may be
    #[command(subcommand)]
    Limits(LimitsCommand),
}

/// All variables of all commands, for the help.
fn describe(variables: &mut Variables) {
    ApiAddresses::read(variables);
    config::postgres(variables, 2, "netagg");
    Kafka::read(variables);
    Groups::read(variables);
    config::partitions_ahead(variables);
}

fn main() -> ExitCode {
    let mut variables = Variables::default();
    describe(&mut variables);
    LogDefaults::COMMAND.describe(&mut variables);
    let matches = Cli::command().term_width(0).after_help(variables.help()).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Demo { serve, events, input } => {
            let events = match input {
                None => DemoEvents::Generated(events),
                Some(path) if path.as_os_str() == "-" => DemoEvents::Stdin,
                Some(path) => DemoEvents::File(path),
            };
            let configure = |variables: &mut Variables| {
                let addresses = ApiAddresses::read(variables);
                DemoConfig { events, serve: serve.then_some(addresses) }
            };
            run_with(configure, LogDefaults::COMMAND, async |config, shutdown| {
                let passed = demo::run(config, shutdown).await?;
                Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            })
        }
        Command::Migrate(command) => run_with(
            |variables| config::postgres(variables, 2, "netagg-migrate"),
            LogDefaults::COMMAND,
            async |postgres, _| admin::migrate(command, postgres).await,
        ),
        Command::Topic(command) => {
            let configure = |variables: &mut Variables| (Kafka::read(variables), Groups::read(variables));
            run_with(configure, LogDefaults::COMMAND, async |(kafka, groups), _| {
                admin::topic(command, kafka, groups).await
            })
        }
        Command::Limits(command) => {
            let configure = |variables: &mut Variables| {
                let postgres = config::postgres(variables, 2, "netagg-limits");
                (postgres, Kafka::read(variables), Groups::read(variables))
            };
            run_with(configure, LogDefaults::COMMAND, async |(postgres, kafka, groups), _| {
                admin::limits(command, postgres, kafka, groups).await
            })
        }
        Command::Partitions(command) => run_with(
            |variables| (config::postgres(variables, 2, "netagg-partitions"), config::partitions_ahead(variables)),
            LogDefaults::COMMAND,
            async |(postgres, ahead), _| admin::partitions(command, postgres, ahead).await,
        ),
    }
}

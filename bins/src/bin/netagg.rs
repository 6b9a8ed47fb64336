//! netagg's command: a demonstration without any service, and the administration of a real installation.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
#[cfg(feature = "services")]
use netagg::admin::{self, LimitsCommand, MigrateCommand, PartitionsCommand, TopicCommand};
#[cfg(feature = "services")]
use netagg::audit::Audit;
use netagg::config::ApiAddresses;
#[cfg(feature = "services")]
use netagg::config::{self, Groups, Kafka};
#[cfg(feature = "services")]
use netagg::dead_letters::DlqCommand;
use netagg::demo::{self, DemoConfig, DemoEvents};
#[cfg(feature = "services")]
use netagg::import::Import;
#[cfg(feature = "services")]
use netagg::keys::KeysCommand;
use netagg::protection;
#[cfg(feature = "services")]
use netagg::protection::ProtectionConfig;
#[cfg(feature = "services")]
use netagg::rebuild::{Places, Rebuild};
use netagg::{Input, LogDefaults, Variables, arguments, run_with};

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
        input: Option<Input>,
    },
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

/// All variables of all commands, for the help.
#[cfg(not(feature = "services"))]
fn describe(variables: &mut Variables) {
    ApiAddresses::read(variables);
}

/// All variables of all commands, for the help.
#[cfg(feature = "services")]
fn describe(variables: &mut Variables) {
    let addresses = ApiAddresses::read(variables);
    ProtectionConfig::read(variables, &addresses);
    config::postgres(variables, 2, "netagg");
    config::redis(variables);
    Kafka::read(variables);
    Groups::read(variables);
    config::event_limits(variables);
    config::partitions_ahead(variables);
}

fn main() -> ExitCode {
    let mut variables = Variables::default();
    describe(&mut variables);
    LogDefaults::COMMAND.describe(&mut variables);
    let cli = match arguments::<Cli>(Cli::command().after_help(variables.help())) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Demo { serve, events, input } => {
            let events = input.map_or(DemoEvents::Generated(events), DemoEvents::Given);
            let configure = |variables: &mut Variables| {
                // Without --serve nothing listens.
                let addresses = variables.unless(!serve, |variables| {
                    let addresses = ApiAddresses::read(variables);
                    protection::open_only(variables, &addresses);
                    addresses
                });
                DemoConfig { events, serve: serve.then_some(addresses) }
            };
            run_with(configure, LogDefaults::COMMAND, async |config, shutdown| {
                let passed = demo::run(config, shutdown).await?;
                Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            })
        }
        #[cfg(feature = "services")]
        Command::Migrate(command) => run_with(
            |variables| config::postgres(variables, 2, "netagg-migrate"),
            LogDefaults::COMMAND,
            async |postgres, _| admin::migrate(command, postgres).await,
        ),
        #[cfg(feature = "services")]
        Command::Topic(command) => {
            let configure = |variables: &mut Variables| (Kafka::read(variables), Groups::read(variables));
            run_with(configure, LogDefaults::COMMAND, async |(kafka, groups), _| {
                admin::topic(command, kafka, groups).await
            })
        }
        #[cfg(feature = "services")]
        Command::Limits(command) => {
            let asks_no_broker = matches!(command, LimitsCommand::Show);
            let configure = |variables: &mut Variables| {
                let postgres = config::postgres(variables, 2, "netagg-limits");
                (postgres, variables.unless(asks_no_broker, Kafka::read), Groups::read(variables))
            };
            run_with(configure, LogDefaults::COMMAND, async |(postgres, kafka, groups), _| {
                admin::limits(command, postgres, kafka, groups).await
            })
        }
        #[cfg(feature = "services")]
        Command::Keys(command) => {
            let has_file = command.has_file();
            let configure = |variables: &mut Variables| {
                let file = protection::keys_file(variables);
                let is_file = has_file || file.is_some();
                (variables.unless(is_file, |variables| config::postgres(variables, 2, "netagg-keys")), file)
            };
            run_with(configure, LogDefaults::COMMAND, async |(postgres, file), _| command.run(postgres, file).await)
        }
        #[cfg(feature = "services")]
        Command::Dlq(command) => {
            run_with(Kafka::read, LogDefaults::COMMAND, async |kafka, shutdown| command.run(kafka, shutdown).await)
        }
        #[cfg(feature = "services")]
        Command::Import(import) => {
            let configure = |variables: &mut Variables| (Kafka::read(variables), config::event_limits(variables));
            run_with(configure, LogDefaults::COMMAND, async |(kafka, limits), shutdown| {
                import.run(kafka, limits, shutdown).await
            })
        }
        #[cfg(feature = "services")]
        Command::Audit(audit) => {
            let configure = |variables: &mut Variables| {
                let postgres = config::postgres(variables, 2, "netagg-audit");
                (postgres, Kafka::read(variables), Groups::read(variables))
            };
            run_with(configure, LogDefaults::COMMAND, async |(postgres, kafka, groups), shutdown| {
                audit.run(postgres, kafka, groups, shutdown).await
            })
        }
        #[cfg(feature = "services")]
        Command::Rebuild(rebuild) => {
            let is_dry_run = rebuild.is_dry_run();
            let configure = |variables: &mut Variables| Places {
                // Two transactions at a time.
                postgres: config::postgres(variables, 3, "netagg-rebuild"),
                redis: variables.unless(is_dry_run, config::redis),
                kafka: Kafka::read(variables),
                groups: Groups::read(variables),
            };
            run_with(configure, LogDefaults::COMMAND, async |places, shutdown| rebuild.run(places, shutdown).await)
        }
        #[cfg(feature = "services")]
        Command::Partitions(command) => {
            let makes_none = !matches!(command, PartitionsCommand::Ensure);
            let configure = |variables: &mut Variables| {
                let postgres = config::postgres(variables, 2, "netagg-partitions");
                (postgres, variables.unless(makes_none, config::partitions_ahead))
            };
            run_with(configure, LogDefaults::COMMAND, async |(postgres, ahead), _| {
                admin::partitions(command, postgres, ahead).await
            })
        }
    }
}

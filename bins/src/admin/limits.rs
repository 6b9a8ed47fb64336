//! The limits of events' ages.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use netagg_core::{ConsumerGroups, EventLimits, HumanDuration, NotDrained};
use netagg_pg::{PgConfig, Postgres};

use crate::Failure;
use crate::arguments::duration;
use crate::config::{self, Groups, Kafka};
use crate::process::{Variables, outln};
use crate::program::run_command;

/// What to do with the limits of events' ages.
#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Show the limits that the database has, which all services must be configured with
    Show,
    /// Record other limits, once both services have drained the topic and stopped
    Set {
        /// The oldest event taken, seen from its record's timestamp, such as 1825d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        max_age: Option<Duration>,
        /// The newest event taken, seen from its record's timestamp, such as 1d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        max_future: Option<Duration>,
        /// Don't check that the topic is drained and the services are stopped; run `netagg audit` afterwards, as totals may
        /// differ from the events
        #[arg(long)]
        force: bool,
    },
}

impl LimitsCommand {
    pub(crate) fn run(self) -> ExitCode {
        let asks_no_broker = matches!(self, Self::Show);
        let configure = |variables: &mut Variables| {
            let postgres = config::postgres(variables, 2, "netagg-limits");
            (postgres, variables.unless(asks_no_broker, Kafka::read), Groups::read(variables))
        };
        run_command(configure, async |(postgres, kafka, groups), _| limits(self, postgres, kafka, groups).await)
    }

    /// Refuses to set nothing.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Set { max_age: None, max_future: None, .. } => {
                Err(Failure::Usage("nothing to set: --max-age or --max-future is accepted".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// Shows the limits or records others.
///
/// # Errors
/// When the topic isn't drained, or the database or the broker cannot be reached.
async fn limits(command: LimitsCommand, postgres: PgConfig, kafka: Kafka, groups: Groups) -> Result<ExitCode, Failure> {
    command.check()?;
    let postgres = Postgres::new(postgres);
    let settings = postgres.settings();
    let recorded = settings.recorded_event_limits().await?;
    let LimitsCommand::Set { max_age, max_future, force } = command else {
        match recorded {
            Some(limits) => print_limits(limits),
            None => outln!("none yet: the first service that starts records its EVENT_MAX_AGE and EVENT_MAX_FUTURE"),
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !force {
        let mode = postgres.recorded_mode().await?.tables();
        check_drained(&config::consumer_groups(&kafka, groups)?.in_mode(mode)).await?;
    }
    let before = recorded.unwrap_or_default();
    let limits =
        EventLimits { max_age: max_age.unwrap_or(before.max_age), max_future: max_future.unwrap_or(before.max_future) };
    settings.set_event_limits(limits).await?;
    print_limits(limits);
    outln!("Start the services with these.");
    if force {
        outln!(
            "Nothing was checked: one service may have judged messages by the old limits and the other by these. Run \
             `netagg audit` once both services have caught up."
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print_limits(limits: EventLimits) {
    outln!("EVENT_MAX_AGE={}", HumanDuration(limits.max_age));
    outln!("EVENT_MAX_FUTURE={}", HumanDuration(limits.max_future));
}

/// Fails unless both groups are without members and have committed everything in the topic.
async fn check_drained(groups: &ConsumerGroups) -> Result<(), Failure> {
    let reason = match groups.check_drained().await {
        Ok(()) => return Ok(()),
        Err(NotDrained::Broker(error)) => return Err(error.into()),
        Err(error @ NotDrained::Behind { .. }) => format!(
            "{error}, which one service might judge by the old limits and the other by the new. Let both drain it and stop \
             them first, or use --force and audit afterwards"
        ),
        Err(error) => format!(
            "{error}. They go on judging by the limits they were started with. Stop them first (a member that was killed \
             counts until its session ends), or use --force and audit afterwards"
        ),
    };
    Err(Failure::Failed(reason.into()))
}

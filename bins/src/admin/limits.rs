//! `netagg limits`: the limits for the age of events.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use netagg_core::{ConsumerGroups, EventLimits, HumanDuration, NotDrained};
use netagg_pg::{PgConfig, Postgres};

use crate::Failure;
use crate::arguments::duration;
use crate::config::{self, Groups, Kafka};
use crate::process::{Variables, outln};
use crate::run_program::run_command;

/// The consequence of a change while services work.
const MIXED_LIMITS: &str = "For the same messages, one service may have used the old limits and another service the new limits. \
                            Run `netagg audit` when the services have processed the topic.";

/// The commands for the limits for the age of events.
#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Show the limits of the database; all services must be configured with these limits
    Show,
    /// Set other limits. First let the services process the topic, then stop them
    Set {
        /// How long before the timestamp of its record an event may start, such as 1825d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        max_age: Option<Duration>,
        /// How long after the timestamp of its record an event may start, such as 1d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        max_future: Option<Duration>,
        /// Do not check that the topic is processed and the services are stopped; run `netagg audit` afterwards, because
        /// totals may differ from the events
        #[arg(long)]
        force: bool,
    },
}

impl LimitsCommand {
    pub(crate) fn run(self) -> ExitCode {
        let needs_no_broker = matches!(self, Self::Show);
        let configure = |variables: &mut Variables| {
            let postgres = config::postgres(variables, 2, "netagg-limits");
            (postgres, variables.unless(needs_no_broker, Kafka::read), Groups::read(variables))
        };
        run_command(configure, async |(postgres, kafka, groups), _| limits(self, postgres, kafka, groups).await)
    }

    /// Rejects a `set` without a limit.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Set { max_age: None, max_future: None, .. } => {
                Err(Failure::Usage("nothing to set; accepted: --max-age, --max-future or both".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// Shows the limits, or sets other limits.
///
/// # Errors
/// When the topic is not processed, a service is running, or the database or the broker cannot be reached.
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
    let groups = if force {
        None
    } else {
        let mode = postgres.recorded_mode().await?.tables();
        let groups = config::consumer_groups(&kafka, groups)?.in_mode(mode);
        check_drained(&groups).await?;
        Some(groups)
    };
    let before = recorded.unwrap_or_default();
    let limits =
        EventLimits { max_age: max_age.unwrap_or(before.max_age), max_future: max_future.unwrap_or(before.max_future) };
    settings.set_event_limits(limits).await?;
    print_limits(limits);
    if let Some(groups) = &groups {
        check_stopped(groups).await?;
    }
    outln!("Start the services with these limits.");
    if force {
        outln!(
            "Topic and services were not checked. Running services stop at their next batch (exit code 2). {MIXED_LIMITS}"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print_limits(limits: EventLimits) {
    outln!("EVENT_MAX_AGE={}", HumanDuration(limits.max_age));
    outln!("EVENT_MAX_FUTURE={}", HumanDuration(limits.max_future));
}

/// Checks after a change of the limits that no service has started since the check before it.
async fn check_stopped(groups: &ConsumerGroups) -> Result<(), Failure> {
    match groups.check_drained().await {
        // Messages that have arrived meanwhile are processed by the new limits.
        Ok(()) | Err(NotDrained::Behind { .. }) => Ok(()),
        Err(error) => {
            let reason = format!("the limits are set, but services may have worked meanwhile: {error}. {MIXED_LIMITS}");
            Err(Failure::Failed(reason.into()))
        }
    }
}

/// Fails unless the groups have no members and have committed all offsets of the topic.
async fn check_drained(groups: &ConsumerGroups) -> Result<(), Failure> {
    let reason = match groups.check_drained().await {
        Ok(()) => return Ok(()),
        Err(NotDrained::Broker(error)) => return Err(error.into()),
        Err(error @ NotDrained::Behind { .. }) => format!(
            "{error}. One service might use the old limits for these messages, and the other service the new limits. First \
             let the services process the topic, then stop them. Or use --force and run `netagg audit` afterwards"
        ),
        Err(error) => format!(
            "{error}. A running service has the limits of its start, and stops at its next batch after a change. Stop the \
             services first (a killed member counts until its session ends), or use --force and run `netagg audit` afterwards"
        ),
    };
    Err(Failure::Failed(reason.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netagg_core::Error;
    use netagg_core::async_trait::async_trait;
    use netagg_core::ports::{GroupOffsets, PartitionLag};

    use super::*;

    /// A broker with this number of members in each group, and messages that no group has processed.
    #[derive(Debug)]
    struct Broker(Option<usize>);

    #[async_trait]
    impl GroupOffsets for Broker {
        async fn lag(&self, _: &str, _: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
            Ok(Some(vec![PartitionLag { number: 0, committed: Some(0), high: 3, lag: 3 }]))
        }

        async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
            self.lag(group, topic).await
        }

        async fn members(&self, _: &str) -> Result<usize, Error> {
            self.0.ok_or_else(|| Error::unavailable("kafka", "the broker is down"))
        }
    }

    #[tokio::test]
    async fn a_service_that_has_started_during_the_change_is_reported() {
        let check = async |members| {
            let (topic, ingestor) = ("events".to_owned(), "i".to_owned());
            let groups = ConsumerGroups { offsets: Arc::new(Broker(members)), topic, ingestor, aggregator: None };
            match check_stopped(&groups).await {
                Err(Failure::Failed(reason)) => reason.to_string(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(check(Some(0)).await, "Ok(())", "new messages are no problem");
        for (members, reason) in [(Some(1), "i has 1 members"), (None, "the broker is down")] {
            let text = check(members).await;
            assert!(text.starts_with("the limits are set, but") && text.contains(reason), "{text}");
            assert!(text.contains("netagg audit"), "{text}");
        }
    }
}

//! `netagg mode`: the mode of a database. Separate services store and count, or the ingestor does both.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use netagg_core::{NotDrained, ProcessingMode};
use netagg_kafka::KafkaTopics;
use netagg_pg::{PgConfig, Postgres, RecordedMode, SwitchError};

use crate::Failure;
use crate::audit::Audit;
use crate::config::{self, Groups, Kafka};
use crate::process::{Shutdown, Variables, outln};
use crate::run_program::run_command;

/// How long the audit after a switch waits for repairs.
const AUDIT_PATIENCE: Duration = Duration::from_secs(60);

/// The commands for the mode.
#[derive(Debug, Subcommand)]
pub(crate) enum ModeCommand {
    /// Show the mode of the database
    Show,
    /// Switch the database to a mode, and audit it. First let the services process the topic, then stop them
    ///
    /// After an interrupted switch, no service starts on the database. Run the same command again to finish the switch.
    Set {
        /// separate: the ingestor stores events and an aggregator counts them; combined: the ingestor stores and counts
        /// events in one transaction, and there is no aggregator
        mode: ProcessingMode,
    },
}

impl ModeCommand {
    pub(crate) fn run(self) -> ExitCode {
        let needs_no_broker = matches!(self, Self::Show);
        let configure = |variables: &mut Variables| {
            let postgres = config::postgres(variables, 2, "netagg-mode");
            (postgres, variables.unless(needs_no_broker, Kafka::read), Groups::read(variables))
        };
        run_command(configure, async |(postgres, kafka, groups), shutdown| match self {
            Self::Show => show(&Postgres::new(postgres)).await,
            Self::Set { mode } => set(mode, postgres, kafka, groups, shutdown).await,
        })
    }
}

async fn show(postgres: &Postgres) -> Result<ExitCode, Failure> {
    postgres.check_schema().await?;
    match postgres.recorded_mode().await? {
        RecordedMode::Set(mode) => outln!("{mode}"),
        RecordedMode::Unset => outln!("none yet: the first service that starts records its mode"),
        RecordedMode::SwitchingTo(mode) => {
            outln!("between two modes: `netagg mode set {mode}` finishes the switch to {mode}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(
    mode: ProcessingMode,
    postgres: PgConfig,
    kafka: Kafka,
    groups: Groups,
    shutdown: Shutdown,
) -> Result<ExitCode, Failure> {
    let switch = Postgres::new(postgres.clone())
        .mode_switch(config::consumer_groups(&kafka, groups.clone())?, Arc::new(KafkaTopics::new(&kafka.client)?));
    let report = tokio::select! {
        report = switch.run(mode) => report.map_err(|error| explain(error, mode))?,
        () = shutdown.token().cancelled_owned() => {
            return Err(Failure::Failed(format!("interrupted; `netagg mode set {mode}` finishes the switch").into()));
        }
    };
    let Some(report) = report else {
        outln!("The database is in the {mode} mode already. Nothing was changed.");
        return Ok(ExitCode::SUCCESS);
    };
    match mode {
        ProcessingMode::Separate => outln!(
            "The database is in the separate mode. The ledger of the aggregator has {} identities. Start ingestors with \
             INGESTOR_MODE=separate, and start aggregators.\n",
            report.counted_identities
        ),
        ProcessingMode::Combined => outln!(
            "The database is in the combined mode. Start ingestors with INGESTOR_MODE=combined. Start no aggregator.\n"
        ),
    }
    Audit::of_everything(AUDIT_PATIENCE).audit(postgres, kafka, groups, shutdown).await
}

fn explain(error: SwitchError, mode: ProcessingMode) -> Failure {
    let reason = match error {
        SwitchError::Store(error) => return error.into(),
        SwitchError::NotDrained(NotDrained::Broker(error)) => return error.into(),
        SwitchError::NotDrained(error @ NotDrained::Behind { .. }) => {
            format!("{error}. First let the services process the topic, then stop them")
        }
        SwitchError::NotDrained(error) => {
            format!("{error}. Stop the services first (a killed member counts until its session ends)")
        }
        SwitchError::DirtyDays { first, last, .. } => {
            format!("{error}: run `netagg rebuild --from {first} --to {last}`, or let a service run for a minute")
        }
        SwitchError::Unfinished { to } => {
            format!("{error}: finish it with `netagg mode set {to}`, then run `netagg mode set {mode}`")
        }
        error => error.to_string(),
    };
    Failure::Failed(reason.into())
}

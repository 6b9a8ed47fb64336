//! `netagg audit`: whether the totals are the sums over the events, and whether every record of the topic is accounted for.

mod text;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use netagg_core::Day;
use netagg_pg::{AuditOptions, AuditReport, AuditVerdict, PgConfig, Postgres, ReadProgress};
use serde::Serialize;

use crate::Failure;
use crate::arguments::duration;
use crate::config::{self, Groups, Kafka, consumer_groups};
use crate::process::outln;
use crate::process::{Shutdown, Variables};
use crate::progress::progress_bar;
use crate::run_program::run_command;

/// The arguments of an audit.
#[derive(Clone, Debug, Args)]
pub(crate) struct Audit {
    /// The first day, such as 2025-10-01; default: the first day with data
    #[arg(long, value_name = "DAY")]
    from: Option<Day>,
    /// The last day, inclusive; default: the last day with data
    #[arg(long, value_name = "DAY")]
    to: Option<Day>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// How long to wait for a service that is behind the other service, and for repairs that are due
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

impl Audit {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| {
            let postgres = config::postgres(variables, 2, "netagg-audit");
            (postgres, Kafka::read(variables), Groups::read(variables))
        };
        run_command(configure, async |(postgres, kafka, groups), shutdown| {
            self.audit(postgres, kafka, groups, shutdown).await
        })
    }

    /// An audit of all days, printed for people.
    pub(crate) fn of_everything(wait: Duration) -> Self {
        Self { from: None, to: None, json: false, wait }
    }

    /// Compares and reports. The exit code is 0 if everything is equal, 1 if something differs, and 2 if the audit could not
    /// tell.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the exit code 2, also when the database cannot be read.
    pub(crate) async fn audit(
        self,
        postgres: PgConfig,
        kafka: Kafka,
        groups: Groups,
        shutdown: Shutdown,
    ) -> Result<ExitCode, Failure> {
        check_range(self.from, self.to)?;
        let options = AuditOptions { from: self.from, to: self.to, patience: self.wait, ..AuditOptions::default() };
        let report = tokio::select! {
            report = find(Postgres::new(postgres), &options, &kafka, groups) => report,
            () = shutdown.token().cancelled_owned() => return Err(could_not_tell("interrupted")),
        };
        let report = report.map_err(could_not_tell)?;
        if self.json {
            print_json(&options, &report)?
        } else {
            text::print(&options, &report)
        }
        Ok(match report.verdict() {
            AuditVerdict::Equal => ExitCode::SUCCESS,
            AuditVerdict::Different => ExitCode::FAILURE,
            AuditVerdict::Undecided => ExitCode::from(2),
        })
    }
}

/// The JSON document. Its field names are part of the interface of the command: docs/audit.md.
#[derive(Serialize)]
struct Document<'a> {
    verdict: AuditVerdict,
    from: Option<Day>,
    to: Option<Day>,
    #[serde(flatten)]
    report: &'a AuditReport,
}

fn print_json(options: &AuditOptions, report: &AuditReport) -> Result<(), Failure> {
    let document = Document { verdict: report.verdict(), from: options.from, to: options.to, report };
    let document = serde_json::to_string_pretty(&document).map_err(|error| Failure::Failed(error.into()))?;
    outln!("{document}");
    Ok(())
}

async fn find(
    postgres: Postgres,
    options: &AuditOptions,
    kafka: &Kafka,
    groups: Groups,
) -> Result<AuditReport, netagg_core::Error> {
    postgres.check_schema().await?;
    let bar = progress_bar(None, "{bar:30} {percent}% {bytes}/{total_bytes} {msg}");
    let on_progress = |progress: ReadProgress| show(&bar, progress);
    let report = match consumer_groups(kafka, groups) {
        Ok(groups) => postgres.audit().with_consumer_groups(groups).run(options, &on_progress).await,
        // Without the broker, the audit compares the database only.
        Err(error) => postgres.audit().run(options, &on_progress).await.map(|mut report| {
            report.broker_problem = Some(error.to_string());
            report
        }),
    };
    bar.finish_and_clear();
    report
}

/// Rejects a range whose first day is after its last day.
pub(crate) fn check_range(from: Option<Day>, to: Option<Day>) -> Result<(), Failure> {
    match (from, to) {
        (Some(from), Some(to)) if from > to => Err(Failure::Usage(format!(
            "--from {from} --to {to}: accepted: a first day that is not after the last day"
        ))),
        _ => Ok(()),
    }
}

fn could_not_tell(reason: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("could not tell: {reason}"))
}

fn show(bar: &ProgressBar, progress: ReadProgress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
    bar.set_message(progress.what);
}

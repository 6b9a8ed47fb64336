//! `netagg dlq`: lists, shows, counts and replays dead letters.

mod filter;
mod list;
mod replay;
mod show;
mod stats;
mod text;

use std::process::ExitCode;

use clap::Subcommand;
use netagg_kafka::{DlqReader, ReplayPlan};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::config::Kafka;
use crate::process::Shutdown;
use crate::run_program::run_command;
use filter::FilterArguments;
use show::PositionArgument;

/// The commands for dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List the newest dead letters
    List {
        /// The dead letters to list.
        #[command(flatten)]
        filter: FilterArguments,
        /// The largest number of dead letters to list
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        limit: u64,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show a whole dead letter: its headers, its key and its value, as text or as a hex dump
    Show {
        /// The position in KAFKA_DLQ_TOPIC, as `list` shows it
        #[arg(value_name = "PARTITION:OFFSET")]
        position: PositionArgument,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Count dead letters by kind, and how many of them were sent again
    Stats {
        /// The dead letters to count.
        #[command(flatten)]
        filter: FilterArguments,
    },
    /// Send dead letters to KAFKA_TOPIC again, with their keys and their own headers
    ///
    /// Each dead letter is sent once. The replay writes a marker to the topic KAFKA_DLQ_TOPIC.replayed in the same
    /// transaction, so later replays leave this dead letter out, also after a replay was killed. The time of the replay
    /// counts as the time of receipt. A message that is still invalid becomes a new dead letter. A replay never sends
    /// messages that netagg did not write, dead letters from another topic, and dead letters with a cut value.
    Replay {
        /// The dead letters to send.
        #[command(flatten)]
        filter: FilterArguments,
        /// The largest number of dead letters to send; default: all
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Also send dead letters that were sent before
        #[arg(long)]
        all: bool,
        /// Print how many dead letters would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl DlqCommand {
    pub(crate) fn run(self) -> ExitCode {
        run_command(Kafka::read, async |kafka, shutdown| self.execute(kafka, shutdown).await)
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the broker is unavailable, the topic does not exist, or the arguments contradict each other.
    async fn execute(self, kafka: Kafka, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        let reader = DlqReader::new(&kafka.client, &kafka.dlq_topic);
        let stop = shutdown.token();
        match self {
            Self::List { filter, limit, json } => {
                unless_stopped(&stop, list::list(&reader, filter, limit, json, &kafka.topic)).await?;
            }
            Self::Show { position, json } => {
                unless_stopped(&stop, show::show(&reader, position, json, &kafka.dlq_topic)).await?;
            }
            Self::Stats { filter } => unless_stopped(&stop, stats::stats(&reader, filter)).await?,
            Self::Replay { filter, limit, all, dry_run } => {
                let filter = filter.filter()?;
                let plan = ReplayPlan { filter, limit, includes_sent: all, is_dry_run: dry_run };
                replay::replay(plan, &kafka, &stop).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs a command that only reads. A stop signal ends it at once.
async fn unless_stopped(
    stop: &CancellationToken,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        outcome = command => outcome,
        () = stop.cancelled() => Err(Failure::Failed("interrupted".into())),
    }
}

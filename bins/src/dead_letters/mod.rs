//! The dead letters: listed, shown, counted, and sent again.

mod filter;
mod list;
mod replay;
mod show;
mod stats;
mod text;

use std::process::ExitCode;

use clap::Subcommand;
use netagg_kafka::{KafkaLetterReader, ReplayPlan};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::config::Kafka;
use crate::process::Shutdown;
use crate::program::run_command;
use filter::FilterArguments;
use show::LetterPlace;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List the newest
    List {
        /// Which ones
        #[command(flatten)]
        filter: FilterArguments,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        limit: u64,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one whole: its headers, its key and its value, as text or as a hex dump
    Show {
        /// Where it lies in KAFKA_DLQ_TOPIC, as `list` has it
        #[arg(value_name = "PARTITION:OFFSET")]
        place: LetterPlace,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Count them by kind, and tell how many have been sent again
    Stats {
        /// Which ones
        #[command(flatten)]
        filter: FilterArguments,
    },
    /// Send them to KAFKA_TOPIC again, with their keys and their own headers
    ///
    /// Each is sent once: what is sent is remembered in the topic KAFKA_DLQ_TOPIC.replayed, in the same transaction, so
    /// that another replay, also after one that was killed, leaves it out. The events count as received now. One that is
    /// still invalid becomes a new dead letter. What netagg did not write, what came from another topic and what had to
    /// be cut is never sent.
    Replay {
        /// Which ones
        #[command(flatten)]
        filter: FilterArguments,
        /// How many at most; all without it
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Also what has been sent before
        #[arg(long)]
        all: bool,
        /// Tell what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl DlqCommand {
    pub(crate) fn run(self) -> ExitCode {
        run_command(Kafka::read, async |kafka, shutdown| self.execute(kafka, shutdown).await)
    }

    /// Does it.
    ///
    /// # Errors
    /// When the broker is away, the topic is not there, or the arguments contradict each other.
    async fn execute(self, kafka: Kafka, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        let reader = KafkaLetterReader::new(&kafka.client, &kafka.dlq_topic);
        let stop = shutdown.token();
        match self {
            Self::List { filter, limit, json } => {
                unless_stopped(&stop, list::list(&reader, filter, limit, json, &kafka.topic)).await?;
            }
            Self::Show { place, json } => {
                unless_stopped(&stop, show::show(&reader, place, json, &kafka.dlq_topic)).await?;
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

/// What only reads is dropped when the program is told to stop.
async fn unless_stopped(
    stop: &CancellationToken,
    answer: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        answer = answer => answer,
        () = stop.cancelled() => Err(Failure::Failed("interrupted".into())),
    }
}

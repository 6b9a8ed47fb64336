//! `netagg import`: publishes the events of a file to the topic.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use netagg_core::ports::EventPublisher;
use netagg_core::{Error, EventLimits, OtelPropagator, TracedPublisher};
use netagg_kafka::KafkaPublisher;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::config::{self, Kafka};
use crate::input::Input;
use crate::process::{Shutdown, Variables};
use crate::process::{noteln, outln};
use crate::progress;
use crate::rejected_lines::RejectedLines;
use crate::run_program::run_command;

/// How long the events in flight may take after a stop signal.
const GRACE: Duration = Duration::from_secs(5);

/// The command that imports events from a pipe.
const PIPED: &str = "netagg import -";

/// The arguments of an import.
#[derive(Clone, Debug, Args)]
pub(crate) struct Import {
    /// A file with one JSON object per line, plain or compressed with gzip or zstd; - is stdin
    #[arg(value_name = "FILE")]
    input: Input,
    /// Check all lines first, and publish nothing if a line is invalid
    #[arg(long)]
    strict: bool,
    /// Start at this line, such as the line that an interrupted import has printed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
}

impl Import {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| (Kafka::read(variables), config::event_limits(variables));
        run_command(configure, async |(kafka, limits), shutdown| self.import(kafka, limits, shutdown).await)
    }

    /// Publishes each valid line unchanged, and prints their number. The exit code is 1 if a line is invalid.
    ///
    /// # Errors
    /// When the input cannot be read or the broker does not accept the events. The error names the line to continue with.
    async fn import(&self, kafka: Kafka, limits: EventLimits, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        let stop = shutdown.token();
        if self.strict && !self.is_valid(limits, &stop).await? {
            return Ok(ExitCode::FAILURE);
        }
        let publisher = Arc::new(KafkaPublisher::new(&kafka.client, &kafka.topic)?);
        let publisher = TracedPublisher::new(publisher, &kafka.topic, Arc::new(OtelPropagator));
        let begun = Instant::now();
        let (published, left_out) = self.publish(limits, &publisher, &stop).await?;
        print_report(published, left_out, begun.elapsed());
        Ok(if left_out == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Whether all lines hold events. Prints the other lines to stderr.
    async fn is_valid(&self, limits: EventLimits, stop: &CancellationToken) -> Result<bool, Failure> {
        let Some(size) = self.input.size() else {
            let name = self.input.name();
            let reason = "the input can be read only once; accepted: a file, or no --strict";
            return Err(Failure::Usage(format!("{name} with --strict: {reason}")));
        };
        let bar = progress_bar(Some(size), "checking");
        let mut rejected = RejectedLines::new(self.input.name());
        let mut lines = self.input.clone().read(limits, self.from_line, bar.clone(), PIPED);
        loop {
            let chunk = tokio::select! {
                () = stop.cancelled() => return Err(Failure::Failed("interrupted; nothing is published".into())),
                chunk = lines.next() => chunk?,
            };
            let Some(chunk) = chunk else { break };
            rejected.note(&chunk.rejected, &bar);
        }
        bar.finish_and_clear();
        let is_valid = rejected.finish() == 0;
        if !is_valid {
            noteln!("{}: nothing is published", self.input.name());
        }
        Ok(is_valid)
    }

    /// Publishes the events. Returns the number of published events and the number of lines left out.
    async fn publish(
        &self,
        limits: EventLimits,
        publisher: &dyn EventPublisher,
        stop: &CancellationToken,
    ) -> Result<(u64, u64), Failure> {
        let bar = progress_bar(self.input.size(), "0 events");
        let mut rejected = RejectedLines::new(self.input.name());
        let mut lines = self.input.clone().read(limits, self.from_line, bar.clone(), PIPED);
        let (mut published, mut next_line) = (0, self.from_line);
        let begun = Instant::now();
        loop {
            let chunk = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(interrupted(next_line)),
                chunk = lines.next() => chunk.map_err(|failure| unreadable(failure, next_line))?,
            };
            let Some(chunk) = chunk else { break };
            rejected.note(&chunk.rejected, &bar);
            let events = chunk.events.len() as u64;
            // One call at a time keeps the events of a user in order. Each call has thousands of events in flight.
            let publishing = publisher.publish(chunk.events.into_iter().map(|line| line.into_record()).collect());
            tokio::select! {
                outcome = publishing => outcome.map_err(|error| not_published(&error, next_line, chunk.next_line))?,
                () = after(stop, GRACE) => return Err(interrupted(next_line)),
            }
            published += events;
            next_line = chunk.next_line;
            bar.set_message(format!("{published} events, {:.0}/s", per_second(published, begun.elapsed())));
        }
        bar.finish_and_clear();
        Ok((published, rejected.finish()))
    }
}

async fn after(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    sleep(time).await;
}

fn interrupted(next_line: u64) -> Failure {
    Failure::Failed(format!("interrupted; {}", how_to_continue(next_line)).into())
}

/// Adds how to continue, except to wrong usage, which is found before anything is published.
fn unreadable(failure: Failure, next_line: u64) -> Failure {
    match failure {
        Failure::Failed(error) => Failure::Failed(format!("{error}; {}", how_to_continue(next_line)).into()),
        usage => usage,
    }
}

fn not_published(error: &Error, next_line: u64, end: u64) -> Failure {
    let reason = format!("lines {next_line} to {}: {error}; {}", end - 1, how_to_continue(next_line));
    Failure::Failed(reason.into())
}

/// How to continue after all lines before `next_line` were published, and perhaps some lines after it.
fn how_to_continue(next_line: u64) -> String {
    const HARMLESS: &str = "an event that is published twice is stored once";
    if next_line == 1 {
        return format!("import the input again: {HARMLESS}");
    }
    format!(
        "all events before line {next_line} are published: continue with --from-line {next_line}, or import the whole \
         input again: {HARMLESS}"
    )
}

fn per_second(events: u64, elapsed: Duration) -> f64 {
    events as f64 / elapsed.as_secs_f64().max(f64::EPSILON)
}

fn print_report(published: u64, left_out: u64, elapsed: Duration) {
    outln!("events_published: {published}");
    outln!("lines_left_out: {left_out}");
    outln!("events_per_sec: {:.1}", per_second(published, elapsed));
}

fn progress_bar(size: Option<u64>, message: &'static str) -> ProgressBar {
    let template = match size {
        Some(_) => "{bar:40} {bytes}/{total_bytes}, {msg}, {eta} left",
        None => "{spinner} {bytes}, {msg}",
    };
    progress::progress_bar(size, template).with_message(message)
}

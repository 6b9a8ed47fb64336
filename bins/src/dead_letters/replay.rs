//! Dead letters, sent again.

use std::collections::BTreeMap;

use comfy_table::CellAlignment;
use indicatif::{ProgressBar, ProgressStyle};
use netagg_kafka::{KafkaLetterReader, KafkaReplay, Replayable, Replayed, Unreplayable};
use tokio_util::sync::CancellationToken;

use super::filter::LetterFilter;
use super::kind;
use crate::admin::table;
use crate::config::Kafka;
use crate::{Failure, output};

/// What one transaction holds at most: one that is short holds up nobody.
const BATCH_LETTERS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;

/// What to send.
pub(super) struct Plan {
    pub(super) filter: LetterFilter,
    pub(super) limit: Option<u64>,
    pub(super) all: bool,
    pub(super) dry_run: bool,
}

impl Plan {
    /// Sends it and reports.
    pub(super) async fn run(
        self,
        reader: &KafkaLetterReader,
        kafka: &Kafka,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        self.filter.check()?;
        let mut sender = Sender::default();
        let replayed = if self.dry_run {
            Replayed::read(&kafka.client, &kafka.dlq_topic).await?
        } else {
            let replay = KafkaReplay::new(&kafka.client, &kafka.topic, &kafka.dlq_topic)?;
            sender.replay.insert(replay).begin().await?
        };
        let mut known = if self.all { Replayed::new() } else { replayed };
        let mut letters = reader.read(self.filter.since()).await?;
        let mut report = Report::default();
        let bar = progress_bar();
        while self.limit.is_none_or(|limit| report.sent < limit) {
            let letter = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                letter = letters.next() => letter?,
            };
            let Some(letter) = letter else { break };
            bar.inc(1);
            if !self.filter.admits(&letter) {
                continue;
            }
            let kind = kind(letter.origin.as_ref());
            match letter.into_replayable(&kafka.topic) {
                Err(reason) => report.left_out(reason),
                Ok(letter) if known.insert(letter.source()) => {
                    report.sent(kind);
                    sender.send(letter).await?;
                }
                Ok(_) => report.sent_before(kind),
            }
        }
        sender.finish().await?;
        bar.finish_and_clear();
        output::print(report.show(&kafka.topic, self.dry_run));
        if stop.is_cancelled() {
            return Err(Failure::Failed("interrupted; another replay sends the rest".into()));
        }
        Ok(())
    }
}

/// Collects letters for transactions; a dry run has nothing to send them with.
#[derive(Default)]
struct Sender {
    replay: Option<KafkaReplay>,
    batch: Vec<Replayable>,
    bytes: usize,
    sent: usize,
}

impl Sender {
    async fn send(&mut self, letter: Replayable) -> Result<(), Failure> {
        if self.replay.is_some() {
            self.bytes += letter.size();
            self.batch.push(letter);
        }
        if self.batch.len() < BATCH_LETTERS && self.bytes < BATCH_BYTES { Ok(()) } else { self.finish().await }
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        let Some(replay) = self.replay.as_ref().filter(|_| !self.batch.is_empty()) else { return Ok(()) };
        let batch = std::mem::take(&mut self.batch);
        let (count, sent) = (batch.len(), self.sent);
        replay.send(batch).await.map_err(|error| {
            let reason = format!("{error}; {sent} letters were sent before that, another replay sends the rest");
            Failure::Failed(reason.into())
        })?;
        self.sent += count;
        self.bytes = 0;
        Ok(())
    }
}

/// What became of the letters.
#[derive(Debug, Default)]
struct Report {
    sent: u64,
    /// Sent, and sent before, by kind.
    kinds: BTreeMap<&'static str, (u64, u64)>,
    left_out: BTreeMap<Unreplayable, u64>,
}

impl Report {
    fn sent(&mut self, kind: &'static str) {
        self.sent += 1;
        self.kinds.entry(kind).or_default().0 += 1;
    }

    fn sent_before(&mut self, kind: &'static str) {
        self.kinds.entry(kind).or_default().1 += 1;
    }

    fn left_out(&mut self, reason: Unreplayable) {
        *self.left_out.entry(reason).or_default() += 1;
    }

    fn show(&self, topic: &str, dry_run: bool) -> String {
        let mut table = table(["kind", if dry_run { "would be sent" } else { "sent" }, "sent before"]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let before = self.kinds.values().map(|(_, before)| before).sum();
        for (kind, (sent, before)) in self.kinds.iter().chain([(&"all", &(self.sent, before))]) {
            table.add_row([(*kind).to_owned(), sent.to_string(), before.to_string()]);
        }
        let mut shown = format!("{table}\n");
        for (reason, count) in &self.left_out {
            let reason = match reason {
                Unreplayable::Foreign => "foreign: netagg did not write them".to_owned(),
                Unreplayable::OtherTopic => format!("from another topic than {topic}"),
                Unreplayable::Truncated => "truncated: their values were cut to fit".to_owned(),
            };
            shown.push_str(&format!("left out: {count} {reason}\n"));
        }
        shown
    }
}

/// A counter on the terminal; nothing where stderr isn't one.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    match ProgressStyle::with_template("{spinner} {human_pos} dead letters read, {per_sec}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

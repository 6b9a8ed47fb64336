//! `netagg dlq replay`: sends dead letters again.

use netagg_kafka::{ReplayCount, ReplayError, ReplayPlan, ReplayReport, Unreplayable};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::config::Kafka;
use crate::process::output;
use crate::progress::progress_bar;
use crate::tables::{right_align, table};

/// Carries out `plan` and prints the report.
pub(super) async fn replay(plan: ReplayPlan, kafka: &Kafka, stop: &CancellationToken) -> Result<(), Failure> {
    let bar = progress_bar(None, "{spinner} {human_pos} dead letters read, {per_sec}");
    let report = plan.run(&kafka.client, &kafka.topic, &kafka.dlq_topic, stop, || bar.inc(1)).await?;
    bar.finish_and_clear();
    output::print(show(&report, &kafka.topic, plan.is_dry_run));
    if report.is_interrupted {
        return Err(Failure::Failed("interrupted; another replay sends the rest".into()));
    }
    Ok(())
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Config(error) => error.into(),
            ReplayError::Kafka(error) => error.into(),
            error => Self::Failed(error.to_string().into()),
        }
    }
}

fn show(report: &ReplayReport, topic: &str, is_dry_run: bool) -> String {
    let mut table = table(["kind", if is_dry_run { "would be sent" } else { "sent" }, "sent before"]);
    right_align(&mut table, 1..);
    let kinds =
        report.kinds.iter().map(|(kind, ReplayCount { sent, sent_before, .. })| (kind.as_str(), *sent, *sent_before));
    for (kind, sent, sent_before) in kinds.chain([("all", report.sent(), report.sent_before())]) {
        table.add_row([kind.to_owned(), sent.to_string(), sent_before.to_string()]);
    }
    let mut shown = format!("{table}\n");
    for (reason, count) in &report.left_out {
        let reason = match reason {
            Unreplayable::Foreign => "foreign: netagg did not write them".to_owned(),
            Unreplayable::OtherTopic => format!("not from the topic {topic}"),
            Unreplayable::Truncated => "truncated: their values were cut to fit".to_owned(),
        };
        shown.push_str(&format!("left out: {count} {reason}\n"));
    }
    shown
}

//! The limits of events, their partitions and their batches.

use std::time::Duration;

use netagg_core::{ConsumerConfig, EventLimits, HumanDuration, ProcessingMode};
use netagg_pg::PartitionPlan;

use crate::process::Variables;

const DAY: Duration = Duration::from_secs(86_400);

/// Which events are taken.
pub fn event_limits(variables: &mut Variables) -> EventLimits {
    let any = Duration::ZERO..=3_652_059 * DAY;
    let default = EventLimits::default();
    EventLimits {
        max_age: variables.duration(
            "EVENT_MAX_AGE",
            default.max_age,
            any.clone(),
            "oldest event taken, before its record's time",
        ),
        max_future: variables.duration(
            "EVENT_MAX_FUTURE",
            default.max_future,
            any,
            "newest event taken, after its record's time",
        ),
    }
}

/// How many months of partitions are made ahead.
pub fn partitions_ahead(variables: &mut Variables) -> u32 {
    let default = u64::from(PartitionPlan::default().ahead);
    variables.number("PARTITIONS_AHEAD", default, 0..=120, "months of partitions made ahead") as u32
}

/// Which partitions there are to be, where events are judged by `limits`.
pub fn partition_plan(variables: &mut Variables, limits: EventLimits) -> PartitionPlan {
    const RETENTION: &str = "EVENT_RETENTION";
    let accepted = format!("{}, not less than EVENT_MAX_AGE", HumanDuration::ACCEPTED);
    let meaning = "how long events are kept, in whole months; totals stay; default: for ever";
    let parse = |text: &str| {
        text.parse().ok().map(|HumanDuration(retention)| retention).filter(|retention| *retention >= limits.max_age)
    };
    let ahead = partitions_ahead(variables);
    let retention = variables.parse(RETENTION, "", meaning, &accepted, parse);
    PartitionPlan::default().with_ahead(ahead).with_retention(retention)
}

/// The batches of the consumer whose variables start with `prefix`.
pub fn consumer(variables: &mut Variables, prefix: &str) -> ConsumerConfig {
    let mut config = ConsumerConfig::default();
    let workers = variables.number(
        &format!("{prefix}_WORKER_COUNT"),
        config.batches_in_flight as u64,
        1..=64,
        "batches written to PostgreSQL at a time",
    );
    let batch_size = variables.number(
        &format!("{prefix}_BATCH_SIZE"),
        config.batch_size as u64,
        1..=50_000,
        "most events of a batch",
    );
    config.batch_timeout = variables.duration(
        &format!("{prefix}_BATCH_TIMEOUT"),
        config.batch_timeout,
        Duration::from_millis(1)..=Duration::from_secs(60),
        "longest an event waits for its batch to fill",
    );
    config.batch_size = batch_size as usize;
    config.batches_in_flight = workers as usize;
    config
}

/// Whether the ingestor also counts the events.
pub fn mode(variables: &mut Variables) -> ProcessingMode {
    let default = ProcessingMode::default();
    let meaning = "separate: an aggregator counts the events; combined: the ingestor counts them itself, and there is no aggregator";
    let accepted = ProcessingMode::ALL.map(ProcessingMode::as_str).join(" or ");
    let parse = |text: &str| text.parse().ok();
    variables.parse("INGESTOR_MODE", default.as_str(), meaning, &accepted, parse).unwrap_or(default)
}

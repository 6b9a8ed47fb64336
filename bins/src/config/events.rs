//! The limits for the age of events, the partitions and the batches.

use std::time::Duration;

use netagg_core::{ConsumerConfig, EventLimits, HumanDuration, ProcessingMode};
use netagg_pg::PartitionPlan;

use crate::process::Variables;

const DAY: Duration = Duration::from_secs(86_400);

/// Reads the limits for the age of events.
pub fn event_limits(variables: &mut Variables) -> EventLimits {
    variables.group("Events and partitions");
    let any = Duration::ZERO..=3_652_059 * DAY;
    let default = EventLimits::default();
    EventLimits {
        max_age: variables.duration(
            "EVENT_MAX_AGE",
            default.max_age,
            any.clone(),
            "accept events that started at most this long before the time of their Kafka record",
        ),
        max_future: variables.duration(
            "EVENT_MAX_FUTURE",
            default.max_future,
            any,
            "accept events that start at most this long after the time of their Kafka record",
        ),
    }
}

/// Reads for how many future months partitions are created.
pub fn partitions_ahead(variables: &mut Variables) -> u32 {
    variables.group("Events and partitions");
    let default = u64::from(PartitionPlan::default().ahead);
    let meaning = "number of future months for which partitions of events_raw are created ahead";
    variables.number("PARTITIONS_AHEAD", default, 0..=120, meaning) as u32
}

/// Reads which month partitions to create and to drop, for events that `limits` accept.
pub fn partition_plan(variables: &mut Variables, limits: EventLimits) -> PartitionPlan {
    const RETENTION: &str = "EVENT_RETENTION";
    let accepted = format!("{}, not less than EVENT_MAX_AGE", HumanDuration::ACCEPTED);
    let meaning = "drop months of events that are older than this; totals are kept; default: keep all events";
    let parse = |text: &str| {
        text.parse().ok().map(|HumanDuration(retention)| retention).filter(|retention| *retention >= limits.max_age)
    };
    let ahead = partitions_ahead(variables);
    let retention = variables.parse(RETENTION, "", meaning, &accepted, parse);
    PartitionPlan::default().with_ahead(ahead).with_retention(retention)
}

/// Reads the batch settings of the consumer whose variables start with `prefix`.
pub fn consumer(variables: &mut Variables, prefix: &str) -> ConsumerConfig {
    variables.group("Batches");
    let mut config = ConsumerConfig::default();
    let workers = variables.number(
        &format!("{prefix}_WORKER_COUNT"),
        config.batches_in_flight as u64,
        1..=64,
        "number of batches that are written to PostgreSQL at the same time",
    );
    let batch_size = variables.number(
        &format!("{prefix}_BATCH_SIZE"),
        config.batch_size as u64,
        1..=50_000,
        "largest number of events in a batch",
    );
    config.batch_timeout = variables.duration(
        &format!("{prefix}_BATCH_TIMEOUT"),
        config.batch_timeout,
        Duration::from_millis(1)..=Duration::from_secs(60),
        "longest time that an event waits for its batch to fill",
    );
    config.batch_size = batch_size as usize;
    config.batches_in_flight = workers as usize;
    config
}

/// Reads whether the ingestor also counts the events.
pub fn mode(variables: &mut Variables) -> ProcessingMode {
    variables.group("Batches");
    let default = ProcessingMode::default();
    let meaning = "separate: an aggregator counts the events; combined: the ingestor counts them, no aggregator runs";
    let accepted = ProcessingMode::ALL.map(ProcessingMode::as_str).join(" or ");
    let parse = |text: &str| text.parse().ok();
    variables.parse("INGESTOR_MODE", default.as_str(), meaning, &accepted, parse).unwrap_or(default)
}

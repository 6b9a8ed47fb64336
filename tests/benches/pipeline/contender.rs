//! The contenders of the benchmark: the ways to store and count a backlog.

use std::process::{Child, Command};
use std::time::Duration;

use sqlx::PgPool;

use crate::plain_loop;
use crate::programs::Process;
use crate::usage::{cpu_seconds, resident_mib};

/// A way to process a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Ingestor,
    /// An ingestor that exports 1 % of its traces.
    TracedIngestor,
    Aggregator,
    Separate,
    Combined,
    PlainLoop(usize),
}

impl Contender {
    pub(super) const ALL: [Self; 7] = [
        Self::Ingestor,
        Self::TracedIngestor,
        Self::Aggregator,
        Self::Separate,
        Self::Combined,
        Self::PlainLoop(1),
        Self::PlainLoop(2),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ingestor => "ingestor alone",
            Self::TracedIngestor => "ingestor alone, 1 % traced",
            Self::Aggregator => "aggregator alone",
            Self::Separate => "separate services",
            Self::Combined => "combined ingestor",
            Self::PlainLoop(1) => "plain loop",
            Self::PlainLoop(_) => "plain loop, 2 processes",
        }
    }

    pub(super) fn is_netagg(self) -> bool {
        !matches!(self, Self::PlainLoop(_))
    }

    /// A query for the number of processed records.
    pub(super) fn progress(self) -> &'static str {
        match self {
            Self::Ingestor | Self::TracedIngestor | Self::Combined => {
                "SELECT coalesce(sum(upper(done) - lower(done)), 0)::bigint FROM consumer_progress WHERE service = 'ingestor'"
            }
            Self::Aggregator => {
                "SELECT coalesce(sum(upper(done) - lower(done)), 0)::bigint FROM consumer_progress \
                 WHERE service = 'aggregator'"
            }
            Self::Separate => {
                "SELECT coalesce(min(done), 0)::bigint FROM (SELECT coalesce(sum(upper(done) - lower(done)), 0) AS done \
                 FROM (VALUES ('ingestor'), ('aggregator')) AS one (service) LEFT JOIN consumer_progress USING (service) \
                 GROUP BY service) AS services"
            }
            Self::PlainLoop(_) => "SELECT coalesce(sum(records), 0)::bigint FROM plain_progress",
        }
    }

    /// Whether all events are stored. The progress of a plain loop does not show this: after a rebalance it counts records that
    /// were delivered twice as two records.
    pub(super) async fn has_stored(self, pool: &PgPool, events: u64) -> bool {
        if self.is_netagg() {
            return true;
        }
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM plain_events").fetch_one(pool).await.expect("a count");
        stored.unsigned_abs() >= events
    }

    /// A query for two numbers: the stored events, and the days and types whose totals differ from the sums over the events.
    pub(super) fn check(self) -> String {
        let (events, totals) = match self {
            Self::Ingestor | Self::TracedIngestor => {
                return "SELECT count(*), 0::bigint FROM events_raw".to_owned();
            }
            Self::Aggregator => return "SELECT sum(count_events)::bigint, 0::bigint FROM agg_day".to_owned(),
            Self::Separate | Self::Combined => ("events_raw", "agg_day"),
            Self::PlainLoop(_) => ("plain_events", "plain_totals"),
        };
        format!(
            "SELECT (SELECT count(*) FROM {events}), (SELECT count(*) FROM (
                 SELECT (started_at AT TIME ZONE 'UTC')::date AS day, type, count(*) AS count_events,
                        coalesce(sum(duration_sec), 0)::bigint AS sum_duration, sum(bytes_up) AS sum_bytes_up,
                        sum(bytes_down) AS sum_bytes_down FROM {events} GROUP BY 1, 2) AS wanted
             FULL JOIN {totals} AS found USING (day, type)
             WHERE (wanted.count_events, wanted.sum_duration, wanted.sum_bytes_up, wanted.sum_bytes_down)
                 IS DISTINCT FROM (found.count_events, found.sum_duration, found.sum_bytes_up, found.sum_bytes_down))"
        )
    }

    /// Starts the processes of the contender. `traces` is the address of a receiver of traces.
    pub(super) fn start(self, variables: &[(&'static str, String)], traces: &str) -> Vec<Running> {
        let netagg = |service| Running::Netagg(Process::start(service, [""; 0], variables.iter().cloned()));
        match self {
            Self::Ingestor => vec![netagg("ingestor")],
            Self::TracedIngestor => {
                let traces = [
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", traces.to_owned()),
                    ("OTEL_TRACES_SAMPLER", "traceidratio".to_owned()),
                    ("OTEL_TRACES_SAMPLER_ARG", "0.01".to_owned()),
                ];
                let variables = variables.iter().cloned().chain(traces);
                vec![Running::Netagg(Process::start("ingestor", [""; 0], variables))]
            }
            Self::Aggregator => vec![netagg("aggregator")],
            Self::Separate => vec![netagg("ingestor"), netagg("aggregator")],
            Self::Combined => {
                let combined = variables.iter().cloned().chain([("INGESTOR_MODE", "combined".to_owned())]);
                vec![Running::Netagg(Process::start("ingestor", [""; 0], combined))]
            }
            Self::PlainLoop(processes) => (0..processes)
                .map(|_| {
                    let mut command = Command::new(std::env::current_exe().expect("this program"));
                    command.arg(PLAIN_LOOP).envs(variables.iter().cloned());
                    Running::Plain(command.spawn().expect("a plain loop"))
                })
                .collect(),
        }
    }
}

/// The argument that makes this program run as the plain loop.
pub(super) const PLAIN_LOOP: &str = "--plain-loop";

/// Runs as the plain loop, if the arguments say so.
pub(super) async fn run_as_plain_loop() -> bool {
    let is_plain = std::env::args().nth(1).is_some_and(|argument| argument == PLAIN_LOOP);
    if is_plain {
        let variable = |name| std::env::var(name).expect("given by the benchmark");
        let (database, brokers) = (variable("DATABASE_URL"), variable("KAFKA_BROKERS"));
        plain_loop::run(&database, &brokers, &variable("KAFKA_TOPIC"), &variable("KAFKA_GROUP_ID_INGESTOR")).await;
    }
    is_plain
}

/// A process of a contender.
pub(super) enum Running {
    Netagg(Process),
    Plain(Child),
}

impl Running {
    fn id(&self) -> u32 {
        match self {
            Self::Netagg(process) => process.id(),
            Self::Plain(child) => child.id(),
        }
    }

    pub(super) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.id())
    }

    pub(super) fn resident_mib(&self) -> u64 {
        resident_mib(self.id())
    }

    pub(super) fn log(&self) -> String {
        match self {
            Self::Netagg(process) => process.stderr(),
            Self::Plain(_) => String::new(),
        }
    }

    pub(super) async fn stop(self) {
        match self {
            Self::Netagg(mut process) => {
                process.terminate();
                process.wait(Duration::from_secs(30)).await;
            }
            Self::Plain(mut child) => {
                child.kill().expect("killed");
                child.wait().expect("the end of the process");
            }
        }
    }
}

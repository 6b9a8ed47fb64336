//! The administration of a real installation: schema, topics, partitions, limits.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::Table;
use netagg_core::ports::{Clock, PartitionLag, SystemClock};
use netagg_core::{ConsumerGroups, EventLimits, Month, NotDrained};
use netagg_kafka::{ConfigError, Creation, KafkaTopics, TopicSpec};
use netagg_pg::{DropError, PgConfig, Postgres, WaitingMonth};

use crate::Failure;
use crate::config::{self, Groups, Kafka};
use netagg_program::outln;
use netagg_program::{Variables, parse_duration, show_duration};

use crate::program::run_command;

/// What to do with the schema.
#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Apply what is missing; several at once are safe
    Up,
    /// List the versions, applied or not; exit code 1 if one is missing
    Status,
    /// Take the last version back, WITH ALL DATA IN IT
    Down {
        /// Take everything back
        #[arg(long, conflicts_with = "to")]
        all: bool,
        /// Take back every version after this one
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
        to: Option<i64>,
    },
}

impl MigrateCommand {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| config::postgres(variables, 2, "netagg-migrate");
        run_command(configure, async |postgres, _| migrate(self, postgres).await)
    }
}

/// Changes the schema, or tells its versions.
///
/// # Errors
/// When the database cannot be reached or refuses.
async fn migrate(command: MigrateCommand, config: PgConfig) -> Result<ExitCode, Failure> {
    let migrations = Postgres::new(config).migrations();
    match command {
        MigrateCommand::Up => migrations.up().await?,
        MigrateCommand::Status => {}
        MigrateCommand::Down { all: true, .. } => migrations.down_all().await?,
        MigrateCommand::Down { to: Some(version), .. } => {
            let known: Vec<_> = migrations.status().await?.iter().map(|known| known.version).collect();
            if version != 0 && !known.contains(&version) {
                let accepted = known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(Failure::Usage(format!("--to {version}: no such version; accepted: 0, {accepted}")));
            }
            migrations.down_to(version).await?;
        }
        MigrateCommand::Down { .. } => migrations.down_one().await?,
    }
    let versions = migrations.status().await?;
    let mut table = table(["version", "description", "applied"]);
    for version in &versions {
        let applied = version.applied_at.map_or("-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        table.add_row([version.version.to_string(), version.description.clone(), applied]);
    }
    outln!("{table}");
    let is_missing_one = versions.iter().any(|version| version.applied_at.is_none());
    let tells = matches!(command, MigrateCommand::Status);
    Ok(if tells && is_missing_one { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Make KAFKA_TOPIC and KAFKA_DLQ_TOPIC, unless they are there
    Create {
        /// How many partitions each gets
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: i32,
        /// How many copies of each partition; the broker's default without it
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100))]
        replication: Option<i32>,
    },
    /// List all topics
    List,
    /// Show a topic's partitions, leaders and offsets, and how many messages each of our groups has before it
    Describe {
        /// The topic; KAFKA_TOPIC without it
        #[arg(value_parser = topic_name)]
        topic: Option<String>,
    },
}

impl TopicCommand {
    pub(crate) fn run(self) -> ExitCode {
        let configure = |variables: &mut Variables| (Kafka::read(variables), Groups::read(variables));
        run_command(configure, async |(kafka, groups), _| topic(self, kafka, groups).await)
    }
}

fn topic_name(text: &str) -> Result<String, String> {
    config::topic_name(text).ok_or_else(|| format!("{} are accepted", config::TOPIC_NAME))
}

/// Makes topics or tells about them.
///
/// # Errors
/// When the broker cannot be reached or refuses.
async fn topic(command: TopicCommand, kafka: Kafka, groups: Groups) -> Result<ExitCode, Failure> {
    let topics = KafkaTopics::new(&kafka.client)?;
    match command {
        TopicCommand::Create { partitions, replication } => {
            for spec in [TopicSpec::events(&kafka.topic), TopicSpec::dead_letters(&kafka.dlq_topic)] {
                let spec = TopicSpec { partitions, replication, ..spec };
                let outcome = match topics.create(&spec).await? {
                    Creation::Created => "created",
                    Creation::Existed => "was there, left as it is",
                };
                outln!("{}: {outcome}", spec.name);
            }
        }
        TopicCommand::List => {
            let mut table = table(["topic", "partitions"]);
            for topic in topics.list().await? {
                table.add_row([topic.name, topic.partitions.to_string()]);
            }
            outln!("{table}");
        }
        TopicCommand::Describe { topic } => {
            return describe_topic(&topics, topic.unwrap_or(kafka.topic), &groups).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn describe_topic(topics: &KafkaTopics, name: String, groups: &Groups) -> Result<ExitCode, Failure> {
    let Some(topic) = topics.describe(&name).await? else {
        return Err(Failure::Failed(format!("there is no topic {name}; `netagg topic create` makes ours").into()));
    };
    let size = topic.max_message_bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    outln!("{}: largest message {size} bytes", topic.name);
    let list = |ids: &[i32]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let ingested = topics.lag(&groups.ingestor, &name).await?.unwrap_or_default();
    let aggregated = topics.lag(&groups.aggregator, &name).await?.unwrap_or_default();
    let mut table = table([
        "partition",
        "first offset",
        "next offset",
        "ingestor lag",
        "aggregator lag",
        "leader",
        "replicas",
        "in sync",
    ]);
    for partition in &topic.partitions {
        let lag = |lags: &[PartitionLag]| {
            let of_partition = lags.iter().find(|lag| lag.number == partition.number);
            // What a group has never committed, it has all of before it.
            of_partition.map_or("-".to_owned(), |lag| lag.lag.to_string())
        };
        table.add_row([
            partition.number.to_string(),
            partition.low.to_string(),
            partition.high.to_string(),
            lag(&ingested),
            lag(&aggregated),
            partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
            list(&partition.replicas),
            list(&partition.in_sync),
        ]);
    }
    outln!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// What to do with the partitions of `events_raw`.
#[derive(Debug, Subcommand)]
pub(crate) enum PartitionsCommand {
    /// Make those of this month and of PARTITIONS_AHEAD months after it
    Ensure,
    /// List them with their sizes
    List,
    /// Drop the months before one FOR GOOD, with their events and identities; their totals stay
    Drop {
        /// The first month to keep
        #[arg(long, value_name = "YYYY-MM")]
        before: Month,
    },
}

impl PartitionsCommand {
    pub(crate) fn run(self) -> ExitCode {
        let makes_none = !matches!(self, Self::Ensure);
        let configure = |variables: &mut Variables| {
            let postgres = config::postgres(variables, 2, "netagg-partitions");
            (postgres, variables.unless(makes_none, config::partitions_ahead))
        };
        run_command(configure, async |(postgres, ahead), _| partitions(self, postgres, ahead).await)
    }
}

/// Makes partitions, lists them, or drops the old ones.
///
/// # Errors
/// When the database cannot be reached or refuses, or when events of the months to drop are still taken.
async fn partitions(command: PartitionsCommand, config: PgConfig, ahead: u32) -> Result<ExitCode, Failure> {
    let postgres = Postgres::new(config);
    let partitions = postgres.partitions();
    match command {
        PartitionsCommand::Ensure => {
            let ahead = partitions.ensure_ahead(SystemClock.now(), ahead).await?;
            outln!("{} partitions made", ahead.made.len());
            for month in ahead.made {
                outln!("{month}");
            }
            if !ahead.not_made.is_empty() {
                let reasons: Vec<_> = ahead.not_made.into_iter().map(|(_, reason)| reason).collect();
                return Err(Failure::Failed(reasons.join("; ").into()));
            }
        }
        PartitionsCommand::List => {
            let mut table = table(["partition", "month", "events (estimated)", "bytes"]);
            right_align(&mut table, 2..);
            for partition in partitions.list().await? {
                let rows = partition.estimated_rows.map_or("-".to_owned(), |rows| rows.to_string());
                table.add_row([partition.name, partition.month.to_string(), rows, partition.bytes.to_string()]);
            }
            outln!("{table}");
            for WaitingMonth { month, events, .. } in partitions.set_aside().await? {
                outln!("set aside: {events} events of {month}, which has no partition");
            }
            if let Some(month) = postgres.retention().dropped_through().await? {
                outln!("dropped: the months up to {month}");
            }
        }
        PartitionsCommand::Drop { before } => {
            let limits = postgres.settings().recorded_event_limits().await?.unwrap_or_default();
            let dropped = match postgres.retention().drop_before(before, limits, SystemClock.now()).await {
                Ok(dropped) => dropped,
                Err(error @ DropError::StillTaken { .. }) => {
                    return Err(Failure::Usage(format!("--before {before}: {error}")));
                }
                Err(DropError::Store(error)) => return Err(error.into()),
                Err(error) => return Err(Failure::Failed(error.into())),
            };
            outln!("{} months dropped, {} identities removed", dropped.months.len(), dropped.identities);
            for month in dropped.months {
                outln!("{month}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What to do with the limits of events' ages.
#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Show the limits that the database has, which all services must be configured with
    Show,
    /// Record other limits, once both services have drained the topic and stopped
    Set {
        /// The oldest event taken, seen from its record's timestamp, such as 1825d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        max_age: Option<Duration>,
        /// The newest event taken, seen from its record's timestamp, such as 1d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        max_future: Option<Duration>,
        /// Don't check that the topic is drained and the services are stopped; run `netagg audit` afterwards, as totals may
        /// differ from the events
        #[arg(long)]
        force: bool,
    },
}

impl LimitsCommand {
    pub(crate) fn run(self) -> ExitCode {
        let asks_no_broker = matches!(self, Self::Show);
        let configure = |variables: &mut Variables| {
            let postgres = config::postgres(variables, 2, "netagg-limits");
            (postgres, variables.unless(asks_no_broker, Kafka::read), Groups::read(variables))
        };
        run_command(configure, async |(postgres, kafka, groups), _| limits(self, postgres, kafka, groups).await)
    }

    /// Refuses to set nothing.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Set { max_age: None, max_future: None, .. } => {
                Err(Failure::Usage("nothing to set: --max-age or --max-future is accepted".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("an integer and a unit (us ms s m h d) is accepted")
}

/// Shows the limits or records others.
///
/// # Errors
/// When the topic isn't drained, or the database or the broker cannot be reached.
async fn limits(command: LimitsCommand, postgres: PgConfig, kafka: Kafka, groups: Groups) -> Result<ExitCode, Failure> {
    command.check()?;
    let settings = Postgres::new(postgres).settings();
    let recorded = settings.recorded_event_limits().await?;
    let LimitsCommand::Set { max_age, max_future, force } = command else {
        match recorded {
            Some(limits) => print_limits(limits),
            None => outln!("none yet: the first service that starts records its EVENT_MAX_AGE and EVENT_MAX_FUTURE"),
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !force {
        check_drained(&consumer_groups(&kafka, groups)?).await?;
    }
    let before = recorded.unwrap_or_default();
    let limits =
        EventLimits { max_age: max_age.unwrap_or(before.max_age), max_future: max_future.unwrap_or(before.max_future) };
    settings.set_event_limits(limits).await?;
    print_limits(limits);
    outln!("Start the services with these.");
    if force {
        outln!(
            "Nothing was checked: one service may have judged messages by the old limits and the other by these. Run \
             `netagg audit` once both services have caught up."
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print_limits(limits: EventLimits) {
    outln!("EVENT_MAX_AGE={}", show_duration(limits.max_age));
    outln!("EVENT_MAX_FUTURE={}", show_duration(limits.max_future));
}

/// Fails unless both groups are without members and have committed everything in the topic.
async fn check_drained(groups: &ConsumerGroups) -> Result<(), Failure> {
    let reason = match groups.check_drained().await {
        Ok(()) => return Ok(()),
        Err(NotDrained::Broker(error)) => return Err(error.into()),
        Err(error @ NotDrained::Behind { .. }) => format!(
            "{error}, which one service might judge by the old limits and the other by the new. Let both drain it and stop \
             them first, or use --force and audit afterwards"
        ),
        Err(error) => format!(
            "{error}. They go on judging by the limits they were started with. Stop them first (a member that was killed \
             counts until its session ends), or use --force and audit afterwards"
        ),
    };
    Err(Failure::Failed(reason.into()))
}

/// The groups that read the topic of events. Fails if no client can be made of the configuration.
pub(crate) fn consumer_groups(kafka: &Kafka, groups: Groups) -> Result<ConsumerGroups, ConfigError> {
    let offsets = Arc::new(KafkaTopics::new(&kafka.client)?);
    let Groups { ingestor, aggregator } = groups;
    Ok(ConsumerGroups { offsets, topic: kafka.topic.clone(), ingestor, aggregator })
}

pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    table
}

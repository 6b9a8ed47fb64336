//! The administration of a real installation: schema, topics, partitions.
#![allow(clippy::print_stdout, reason = "these are the commands' answers")]

use std::process::ExitCode;

use clap::Subcommand;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use netagg_core::ports::{Clock, SystemClock};
use netagg_kafka::{Creation, KafkaTopics, TopicSpec};
use netagg_pg::{PgConfig, Postgres};

use crate::Failure;
use crate::config::Kafka;

/// What to do with the schema.
#[derive(Debug, Subcommand)]
#[allow(clippy::exhaustive_enums)]
pub enum MigrateCommand {
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

/// Changes the schema, or tells its versions.
///
/// # Errors
/// When the database cannot be reached or refuses.
pub async fn migrate(command: MigrateCommand, config: PgConfig) -> Result<ExitCode, Failure> {
    let migrations = Postgres::new(config).migrations();
    match command {
        MigrateCommand::Up => migrations.up().await?,
        MigrateCommand::Status => {}
        MigrateCommand::Down { all: true, .. } => migrations.down_all().await?,
        MigrateCommand::Down { to: Some(version), .. } => migrations.down_to(version).await?,
        MigrateCommand::Down { .. } => migrations.down_one().await?,
    }
    let versions = migrations.status().await?;
    let mut table = table(["version", "description", "applied"]);
    for version in &versions {
        let applied = version.applied_at.map_or("-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        table.add_row([version.version.to_string(), version.description.clone(), applied]);
    }
    println!("{table}");
    let is_missing_one = versions.iter().any(|version| version.applied_at.is_none());
    let tells = matches!(command, MigrateCommand::Status);
    Ok(if tells && is_missing_one { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
#[allow(clippy::exhaustive_enums)]
pub enum TopicCommand {
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
    /// Tell partitions, leaders and offsets of a topic, and how far our groups have got in it
    Describe {
        /// The topic; KAFKA_TOPIC without it
        topic: Option<String>,
    },
}

/// Makes topics or tells about them.
///
/// # Errors
/// When the broker cannot be reached or refuses.
pub async fn topic(command: TopicCommand, kafka: Kafka) -> Result<ExitCode, Failure> {
    let topics = KafkaTopics::new(&kafka.client)?;
    match command {
        TopicCommand::Create { partitions, replication } => {
            for spec in [TopicSpec::events(&kafka.topic), TopicSpec::dead_letters(&kafka.dlq_topic)] {
                let spec = TopicSpec { partitions, replication, ..spec };
                let outcome = match topics.create(&spec).await? {
                    Creation::Created => "created",
                    Creation::Existed => "was there, left as it is",
                };
                println!("{}: {outcome}", spec.name);
            }
        }
        TopicCommand::List => {
            let mut table = table(["topic", "partitions"]);
            for topic in topics.list().await? {
                table.add_row([topic.name, topic.partitions.to_string()]);
            }
            println!("{table}");
        }
        TopicCommand::Describe { topic } => return describe_topic(&topics, topic.unwrap_or(kafka.topic)).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn describe_topic(topics: &KafkaTopics, name: String) -> Result<ExitCode, Failure> {
    let Some(topic) = topics.describe(&name).await? else {
        return Err(Failure::Failed(format!("there is no topic {name}; `netagg topic create` makes ours").into()));
    };
    let size = topic.max_message_bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    println!("{}: largest message {size} bytes", topic.name);
    let list = |ids: &[i32]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut table = table(["partition", "first offset", "next offset", "leader", "replicas", "in sync"]);
    for partition in &topic.partitions {
        table.add_row([
            partition.number.to_string(),
            partition.low.to_string(),
            partition.high.to_string(),
            partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
            list(&partition.replicas),
            list(&partition.in_sync),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// What to do with the partitions of `events_raw`.
#[derive(Debug, Subcommand)]
#[allow(clippy::exhaustive_enums)]
pub enum PartitionsCommand {
    /// Make those of this month and of PARTITIONS_AHEAD months after it
    Ensure,
    /// List them with their sizes
    List,
}

/// Makes partitions or lists them.
///
/// # Errors
/// When the database cannot be reached or refuses.
pub async fn partitions(command: PartitionsCommand, config: PgConfig, ahead: u32) -> Result<ExitCode, Failure> {
    let partitions = Postgres::new(config).partitions();
    match command {
        PartitionsCommand::Ensure => {
            let made = partitions.ensure_ahead(SystemClock.now(), ahead).await?;
            println!("{} partitions made", made.len());
            for month in made {
                println!("{month}");
            }
        }
        PartitionsCommand::List => {
            let mut table = table(["partition", "month", "events (estimated)", "bytes"]);
            for column in table.column_iter_mut().skip(2) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            for partition in partitions.list().await? {
                let rows = partition.estimated_rows.map_or("-".to_owned(), |rows| rows.to_string());
                table.add_row([partition.name, partition.month.to_string(), rows, partition.bytes.to_string()]);
            }
            println!("{table}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    table
}

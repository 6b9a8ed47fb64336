//! `netagg topic`: the Kafka topics.

use std::process::ExitCode;

use clap::Subcommand;
use netagg_core::ports::PartitionLag;
use netagg_kafka::{Creation, KafkaTopics, TopicSpec};

use crate::Failure;
use crate::config::{self, Groups, Kafka};
use crate::process::{Variables, outln};
use crate::run_program::run_command;
use crate::tables::table;

/// The commands for topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create KAFKA_TOPIC and KAFKA_DLQ_TOPIC, if they do not exist
    Create {
        /// The number of partitions of each topic
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: i32,
        /// The number of copies of each partition; default: the broker's setting
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100))]
        replication: Option<i32>,
    },
    /// List all topics
    List,
    /// Show the partitions of a topic, their leaders and offsets, and the lag of the ingestor and of the aggregator
    Describe {
        /// The topic; default: KAFKA_TOPIC
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
    config::topic_name(text).ok_or_else(|| format!("accepted: {}", config::TOPIC_NAME))
}

/// Creates, lists or describes topics.
///
/// # Errors
/// When the broker cannot be reached or rejects the request.
async fn topic(command: TopicCommand, kafka: Kafka, groups: Groups) -> Result<ExitCode, Failure> {
    let topics = KafkaTopics::new(&kafka.client)?;
    match command {
        TopicCommand::Create { partitions, replication } => {
            for spec in [TopicSpec::events(&kafka.topic), TopicSpec::dead_letters(&kafka.dlq_topic)] {
                let spec = TopicSpec { partitions, replication, ..spec };
                let outcome = match topics.create(&spec).await? {
                    Creation::Created => "created",
                    Creation::Existed => "exists already, not changed",
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
        let reason = format!("there is no topic {name}; `netagg topic create` creates KAFKA_TOPIC and KAFKA_DLQ_TOPIC");
        return Err(Failure::Failed(reason.into()));
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
            // A group that has committed no offset of the partition lags by the whole partition.
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

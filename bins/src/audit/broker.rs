//! What the broker says of the services.

use std::time::Duration;

use netagg_core::PartitionId;
use netagg_core::ports::PartitionLag;
use netagg_kafka::KafkaTopics;
use netagg_pg::{OffsetReport, PgAggregateStore, PgEventStore};

use crate::config::{Groups, Kafka};

/// How long the broker has to answer; without it the database is judged alone.
const LIMIT: Duration = Duration::from_secs(5);

/// How far the groups of the services have got, if that is known.
#[derive(Debug)]
pub(super) struct Broker {
    topic: String,
    lags: Result<Lags, String>,
}

#[derive(Debug)]
struct Lags {
    ingestor: Vec<PartitionLag>,
    aggregator: Vec<PartitionLag>,
}

impl Broker {
    pub(super) async fn ask(kafka: &Kafka, groups: &Groups) -> Self {
        let lags = match tokio::time::timeout(LIMIT, lags(kafka, groups)).await {
            Ok(lags) => lags,
            Err(_) => Err(format!("no answer within {LIMIT:?}")),
        };
        Self { topic: kafka.topic.clone(), lags }
    }

    /// Why it is not known how far they are.
    pub(super) fn silence(&self) -> Option<&str> {
        self.lags.as_ref().err().map(String::as_str)
    }

    /// Whether the topic ends before offsets that were done with.
    pub(super) fn has_topic_anew(&self, accounts: &[OffsetReport]) -> bool {
        let ends_before = |account: &OffsetReport| {
            self.lag(&account.service, &account.partition).is_some_and(|partition| partition.high < account.next)
        };
        accounts.iter().any(ends_before)
    }

    /// How far the group of `service` is in `partition`.
    pub(super) fn lag(&self, service: &str, partition: &PartitionId) -> Option<&PartitionLag> {
        let lags = self.lags.as_ref().ok().filter(|_| *partition.topic == *self.topic)?;
        let lags = match service {
            PgEventStore::SERVICE => &lags.ingestor,
            PgAggregateStore::SERVICE => &lags.aggregator,
            _ => return None,
        };
        lags.iter().find(|lag| lag.number == partition.number)
    }
}

async fn lags(kafka: &Kafka, groups: &Groups) -> Result<Lags, String> {
    let topics = KafkaTopics::new(&kafka.client).map_err(|error| error.to_string())?;
    let of = async |group: &str| match topics.lag(group, &kafka.topic).await {
        Ok(Some(lag)) => Ok(lag),
        Ok(None) => Err(format!("there is no topic {}", kafka.topic)),
        Err(error) => Err(error.to_string()),
    };
    let (ingestor, aggregator) = tokio::try_join!(of(&groups.ingestor), of(&groups.aggregator))?;
    Ok(Lags { ingestor, aggregator })
}

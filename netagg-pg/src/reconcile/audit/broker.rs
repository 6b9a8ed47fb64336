//! The committed offsets of the consumer groups, as the broker reports them.

use std::time::Duration;

use netagg_core::ConsumerGroups;
use netagg_core::ports::PartitionLag;

use crate::reconcile::offsets::OffsetReport;
use crate::stores::progress::{AGGREGATOR, INGESTOR};

/// How long the broker may take to answer. Without an answer, the audit uses the database alone.
const LIMIT: Duration = Duration::from_secs(5);

/// The offsets of both consumer groups in each partition of their topic.
#[derive(Debug)]
pub(super) struct GroupLags {
    topic: String,
    ingestor: Vec<PartitionLag>,
    aggregator: Vec<PartitionLag>,
}

impl GroupLags {
    /// Asks the broker. The error is the reason as text.
    pub(super) async fn ask(groups: &ConsumerGroups) -> Result<Self, String> {
        let ConsumerGroups { offsets, topic, ingestor, aggregator } = groups;
        let of = async |group: &str| match offsets.lag(group, topic).await {
            Ok(Some(lags)) => Ok(lags),
            Ok(None) => Err(format!("there is no topic {topic}")),
            Err(error) => Err(error.to_string()),
        };
        let of_aggregator = async {
            match aggregator {
                Some(group) => of(group).await,
                None => Ok(Vec::new()),
            }
        };
        let both = async { tokio::try_join!(of(ingestor), of_aggregator) };
        let (ingestor, aggregator) =
            tokio::time::timeout(LIMIT, both).await.map_err(|_| format!("no answer within {LIMIT:?}"))??;
        Ok(Self { topic: topic.clone(), ingestor, aggregator })
    }

    /// The offsets of the service's group in the partition of `report`, if it is a partition of the topic.
    pub(super) fn of(&self, report: &OffsetReport) -> Option<&PartitionLag> {
        if *report.partition.topic != *self.topic {
            return None;
        }
        let lags = match &*report.service {
            INGESTOR => &self.ingestor,
            AGGREGATOR => &self.aggregator,
            _ => return None,
        };
        lags.iter().find(|lag| lag.number == report.partition.number)
    }

    /// Whether a partition ends before offsets that are processed in `reports`. Then the topic was recreated.
    pub(super) fn end_before(&self, reports: &[OffsetReport]) -> bool {
        reports.iter().any(|report| self.of(report).is_some_and(|lag| lag.high < report.next))
    }
}

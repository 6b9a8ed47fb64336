//! The consumer groups of the ingestors and the aggregators.

use std::fmt::Display;
use std::sync::Arc;

use crate::Error;
use crate::ports::GroupOffsets;
use crate::processing_mode::ProcessingMode;

/// The consumer groups of the ingestors and the aggregators, and access to their offsets.
#[derive(Clone, Debug)]
pub struct ConsumerGroups {
    /// Reads the offsets and the members of the groups.
    pub offsets: Arc<dyn GroupOffsets>,
    /// The topic that both services read.
    pub topic: String,
    /// The group of the ingestors.
    pub ingestor: String,
    /// The group of the aggregators; `None` in the [combined](ProcessingMode::Combined) mode, which has no aggregators.
    pub aggregator: Option<String>,
}

impl ConsumerGroups {
    /// The groups that read the topic in `mode`.
    #[must_use]
    pub fn in_mode(self, mode: ProcessingMode) -> Self {
        match mode {
            ProcessingMode::Separate => self,
            ProcessingMode::Combined => Self { aggregator: None, ..self },
        }
    }

    /// Checks that the services are stopped and have processed the whole topic. Change the event limits or the mode only in this
    /// state, because all services must decide in the same way about each record.
    ///
    /// # Errors
    /// [`NotDrained`], with the groups that have members. If no group has members, with the groups that have a lag.
    pub async fn check_drained(&self) -> Result<(), NotDrained> {
        let groups = || std::iter::once(&self.ingestor).chain(&self.aggregator);
        let mut members = Vec::new();
        for group in groups() {
            let count = self.offsets.members(group).await?;
            if count > 0 {
                members.push((group.clone(), count));
            }
        }
        if !members.is_empty() {
            return Err(NotDrained::Running { members });
        }
        let mut lags = Vec::new();
        for group in groups() {
            let lag = self.offsets.lag(group, &self.topic).await?.iter().flatten().map(|partition| partition.lag).sum();
            if lag > 0 {
                lags.push((group.clone(), lag));
            }
        }
        if lags.is_empty() { Ok(()) } else { Err(NotDrained::Behind { topic: self.topic.clone(), lags }) }
    }
}

/// Why a topic is not drained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotDrained {
    /// Services are running.
    #[error("the services are running: {}", list(.members, "members"))]
    Running {
        /// The groups that have members, and the number of members. A killed member counts until its session ends.
        members: Vec<(String, usize)>,
    },
    /// The services are stopped and have not processed all records.
    #[error("{topic} is not drained: {}", list(.lags, "unprocessed messages"))]
    Behind {
        /// The topic.
        topic: String,
        /// The groups that have a lag, and the lag in messages.
        lags: Vec<(String, i64)>,
    },
    /// The offsets or members cannot be read.
    #[error(transparent)]
    Broker(#[from] Error),
}

fn list(counts: &[(String, impl Display)], of: &str) -> String {
    counts.iter().map(|(group, count)| format!("{group} has {count} {of}")).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::ports::PartitionLag;

    #[derive(Debug)]
    struct Broker {
        members: usize,
        lags: Option<[i64; 2]>,
    }

    #[async_trait]
    impl GroupOffsets for Broker {
        async fn lag(&self, _: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
            assert_eq!(topic, "events");
            let lag = |(number, lag)| PartitionLag { number, committed: Some(0), high: lag, lag };
            Ok(self.lags.map(|lags| (0..).zip(lags).map(lag).collect()))
        }

        async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
            self.lag(group, topic).await
        }

        async fn members(&self, group: &str) -> Result<usize, Error> {
            Ok(if group == "a" { self.members } else { 0 })
        }
    }

    #[tokio::test]
    async fn a_topic_is_drained_once_both_groups_have_stopped_at_its_end() {
        let check_in = async |mode, members, lags| {
            let offsets = Arc::new(Broker { members, lags });
            let groups =
                ConsumerGroups { offsets, topic: "events".into(), ingestor: "i".into(), aggregator: Some("a".into()) };
            groups.in_mode(mode).check_drained().await.map_err(|error| error.to_string())
        };
        let check = async |members, lags| check_in(ProcessingMode::Separate, members, lags).await;
        assert_eq!(check(0, Some([0, 0])).await, Ok(()));
        assert_eq!(check(0, None).await, Ok(()), "a topic that does not exist has no messages");
        assert_eq!(check(2, Some([1, 2])).await, Err("the services are running: a has 2 members".to_owned()));
        let behind = "events is not drained: i has 3 unprocessed messages and a has 3 unprocessed messages";
        assert_eq!(check(0, Some([1, 2])).await, Err(behind.to_owned()));
        let behind = "events is not drained: i has 3 unprocessed messages";
        assert_eq!(check_in(ProcessingMode::Combined, 2, Some([1, 2])).await, Err(behind.to_owned()));
    }
}

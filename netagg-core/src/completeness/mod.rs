//! Finds out up to which instant a service has processed its topic.
//!
//! The tracker reads offsets from the broker while the service runs. One look records the end of each partition. A later look
//! shows that the group has reached these ends. All partitions are compared. So a partition with a lag holds the instant back,
//! also if no member has this partition, and an idle partition does not.

mod watermarks;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::crash;
use crate::ports::{Clock, CompletenessStore, GroupOffsets, SystemClock};
use crate::record::{PartitionId, Position};
use watermarks::Watermarks;

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// The consumer that a [`CompletenessTracker`] follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedConsumer {
    /// The name of the service in the stores, such as `PgEventStore::SERVICE`.
    pub service: String,
    /// The consumer group of the service.
    pub group: String,
    /// The topic that the service reads.
    pub topic: String,
}

impl TrackedConsumer {
    /// The consumer of `topic` in `group`, which is `service` in the stores.
    pub fn new(service: &str, group: &str, topic: &str) -> Self {
        Self { service: service.to_owned(), group: group.to_owned(), topic: topic.to_owned() }
    }
}

/// Records up to which instant a service has processed its topic, for the `complete_through` of totals.
///
/// Run one tracker beside each ingestor and each aggregator. Trackers of several members of one group do not disturb each
/// other. Without a tracker, `complete_through` stays `None`.
#[derive(Clone, Debug)]
pub struct CompletenessTracker {
    offsets: Arc<dyn GroupOffsets>,
    store: Arc<dyn CompletenessStore>,
    consumer: TrackedConsumer,
}

impl CompletenessTracker {
    /// A tracker of `consumer` that reads offsets with `offsets` and records the instant in `store`.
    pub fn new(offsets: Arc<dyn GroupOffsets>, store: Arc<dyn CompletenessStore>, consumer: TrackedConsumer) -> Self {
        Self { offsets, store, consumer }
    }

    /// Reads the offsets every 5 s until `shutdown`. Logs an error, and tries again after the pause.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut watermarks = Watermarks::default();
        loop {
            crash::in_task("completeness");
            let service = &*self.consumer.service;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                looked = self.look(&mut watermarks) => match looked {
                    Ok(()) => {}
                    // The readiness of the service shows the reason.
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(%error, service, "completeness is unknown for now");
                    }
                    Err(error) => tracing::warn!(%error, service, "completeness cannot be recorded"),
                },
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn look(&self, watermarks: &mut Watermarks) -> Result<(), Error> {
        let TrackedConsumer { service, group, topic } = &self.consumer;
        // The instant before the request. The response includes all records that the broker held at this instant.
        let at = SystemClock.now();
        let Some(mut seen) = self.offsets.lag_in_offsets(group, topic).await? else {
            watermarks.forget();
            return Ok(());
        };
        // An idle partition may end with transaction markers, which no consumer reads. `lag` does not count them.
        if seen.iter().any(|lag| lag.lag > 0 && watermarks.is_idle(lag)) {
            seen = self.offsets.lag(group, topic).await?.unwrap_or_default();
        }
        let Some(through) = watermarks.look(at, &seen) else { return Ok(()) };
        let committed: Vec<_> = seen
            .iter()
            .filter_map(|lag| {
                let partition = PartitionId::new(topic.as_str(), lag.number);
                Some(Position { partition, next_offset: lag.committed? })
            })
            .collect();
        if !self.store.note_complete(service, topic, through, &committed).await? {
            tracing::warn!(
                service,
                "the group has committed offsets that the store has not processed; an audit shows these offsets"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::ports::PartitionLag;
    use crate::time::Timestamp;

    /// First unavailable, then without the topic, then with a group that is always one look behind the end of its partition.
    #[derive(Debug, Default)]
    struct Broker {
        looks: Mutex<i64>,
    }

    #[async_trait]
    impl GroupOffsets for Broker {
        async fn lag(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
            self.lag_in_offsets(group, topic).await
        }

        async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
            assert_eq!((group, topic), ("aggregator-group", "events.telecom"));
            let mut looks = self.looks.lock().expect("no poison");
            *looks += 1;
            match *looks {
                1 => Err(Error::unavailable("kafka", "unavailable")),
                2 => Ok(None),
                look => {
                    let (committed, high) = (Some(10 * (look - 1)), 10 * look);
                    Ok(Some(vec![PartitionLag { number: 0, committed, high, lag: 10 }]))
                }
            }
        }

        async fn members(&self, _: &str) -> Result<usize, Error> {
            Ok(1)
        }
    }

    #[derive(Debug, Default)]
    struct Store(Mutex<Vec<(Timestamp, Vec<Position>)>>);

    #[async_trait]
    impl CompletenessStore for Store {
        async fn note_complete(
            &self,
            service: &str,
            topic: &str,
            through: Timestamp,
            committed: &[Position],
        ) -> Result<bool, Error> {
            assert_eq!((service, topic), ("aggregator", "events.telecom"));
            self.0.lock().expect("no poison").push((through, committed.to_vec()));
            Ok(true)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_records_the_instant_of_the_look_that_the_group_has_reached() {
        let (broker, store, shutdown) =
            (Arc::new(Broker::default()), Arc::new(Store::default()), CancellationToken::new());
        let consumer = TrackedConsumer::new("aggregator", "aggregator-group", "events.telecom");
        let begun = SystemClock.now();
        let tracker = tokio::spawn(CompletenessTracker::new(broker, store.clone(), consumer).run(shutdown.clone()));
        tokio::time::sleep(4 * INTERVAL + INTERVAL / 2).await;
        shutdown.cancel();
        tracker.await.expect("no panic");
        let noted = store.0.lock().expect("no poison");
        let offsets: Vec<_> = noted.iter().map(|(_, committed)| committed[0].next_offset).collect();
        assert_eq!(offsets, [30, 40], "the tracker continues after the outage and the missing topic");
        assert!(noted.iter().all(|(through, _)| (begun..=SystemClock.now()).contains(through)));
    }
}

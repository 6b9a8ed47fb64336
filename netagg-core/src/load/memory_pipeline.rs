//! The services with the adapters in memory, and a check that their results are exact.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::LoadError;
use super::event_model::EventModel;
use super::sender::{LoadConfig, LoadStats, send};
use super::stored_copies::StoredCopies;
use crate::aggregate::{Contribution, Totals};
use crate::aggregator::Aggregator;
use crate::completeness::{CompletenessTracker, TrackedConsumer};
use crate::consumer::{ConsumerConfig, StatsSnapshot};
use crate::error::Error;
use crate::event::EventType;
use crate::ingestor::Ingestor;
use crate::memory::{
    MemoryAggregateStore, MemoryCache, MemoryCombinedStore, MemoryDeadLetters, MemoryEventStore, MemoryLog,
};
use crate::ports::CompletenessStore;
use crate::processing_mode::ProcessingMode;
use crate::time::Day;

const TOPIC: &str = "events.telecom";
const INGESTOR_GROUP: &str = "ingestor-group";
const AGGREGATOR_GROUP: &str = "aggregator-group";

/// The number of records in the log at which publishers start to wait.
const LOG_CAPACITY: usize = 100_000;

/// The whole pipeline in memory, for tests and demonstrations: an ingestor and an aggregator that read one log, or an
/// ingestor that also counts.
///
/// ```
/// use std::sync::Arc;
///
/// use netagg_core::ConsumerConfig;
/// use netagg_core::load::{EventModel, LoadConfig, MemoryPipeline, random_seed};
/// use netagg_core::ports::{Clock, SystemClock};
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (pipeline, stop) = (MemoryPipeline::new(8, ConsumerConfig::default()), CancellationToken::new());
/// let model = Arc::new(EventModel::new(random_seed(), 100, SystemClock.now())?);
/// let load = LoadConfig { events_per_sec: None, events: Some(1_000), invalid_rate: 0.01, ..LoadConfig::default() };
/// let check = async {
///     let published = pipeline.send(&model, load, &stop, |_| {}).await?;
///     pipeline.processed(published.records).await;
///     stop.cancel();
///     pipeline.verify(&published).await
/// };
/// let (ran, mismatches) = tokio::join!(pipeline.run(stop.clone()), check);
/// ran?;
/// assert_eq!(mismatches?, []);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct MemoryPipeline {
    /// The log of records that the services read.
    pub log: MemoryLog,
    /// The store of the events, which the ingestor writes.
    pub events: Arc<MemoryEventStore>,
    /// The store of the totals.
    pub totals: Arc<MemoryAggregateStore>,
    /// The dead letters that the ingestor has sent.
    pub dead_letters: Arc<MemoryDeadLetters>,
    /// The cache. The services invalidate its months when their totals change.
    pub cache: Arc<MemoryCache>,
    ingestor: Ingestor,
    /// `None` in the combined mode.
    aggregator: Option<Aggregator>,
    trackers: Vec<CompletenessTracker>,
}

impl MemoryPipeline {
    /// An empty pipeline in the separate mode, with a log of `partitions` partitions. Both services use `config`.
    ///
    /// A record that repeats an event with other content is a conflict, and the two services may keep different copies. With
    /// one partition and one batch in flight, both keep the first copy.
    pub fn new(partitions: usize, config: ConsumerConfig) -> Self {
        Self::in_mode(ProcessingMode::Separate, partitions, config)
    }

    /// An empty pipeline in `mode`. In the combined mode, the ingestor also counts, and the totals always contain the copy
    /// that is stored.
    pub fn in_mode(mode: ProcessingMode, partitions: usize, config: ConsumerConfig) -> Self {
        let log = MemoryLog::with_capacity(TOPIC, partitions, LOG_CAPACITY);
        let events = Arc::new(MemoryEventStore::new());
        let totals = Arc::new(MemoryAggregateStore::new());
        let dead_letters = Arc::new(MemoryDeadLetters::new());
        let cache = Arc::new(MemoryCache::default());
        let tracker = |store: Arc<dyn CompletenessStore>, service: &str, group: &str| {
            CompletenessTracker::new(Arc::new(log.clone()), store, TrackedConsumer::new(service, group, TOPIC))
        };
        let (ingestor, aggregator, trackers) = match mode {
            ProcessingMode::Separate => (
                Ingestor::new(events.clone(), dead_letters.clone()),
                Some(Aggregator::new(totals.clone()).with_cache(cache.clone()).with_config(config.clone())),
                vec![
                    tracker(events.clone(), MemoryEventStore::SERVICE, INGESTOR_GROUP),
                    tracker(totals.clone(), MemoryAggregateStore::SERVICE, AGGREGATOR_GROUP),
                ],
            ),
            ProcessingMode::Combined => {
                let store = Arc::new(MemoryCombinedStore::of(events.clone(), totals.clone()));
                let ingestor = Ingestor::combined(store.clone(), dead_letters.clone()).with_cache(cache.clone());
                (ingestor, None, vec![tracker(store, MemoryEventStore::SERVICE, INGESTOR_GROUP)])
            }
        };
        let ingestor = ingestor.with_config(config);
        Self { log, events, totals, dead_letters, cache, ingestor, aggregator, trackers }
    }

    /// Runs the services until `stop`, or until the log is closed and read to its end.
    ///
    /// # Errors
    /// The errors of [`Ingestor::run`] and [`Aggregator::run`].
    pub async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let mut source = self.log.source(INGESTOR_GROUP);
        let ingestor = self.ingestor.run(&mut source, stop.clone());
        let aggregate = async {
            match &self.aggregator {
                Some(aggregator) => aggregator.run(&mut self.log.source(AGGREGATOR_GROUP), stop.clone()).await,
                None => Ok(()),
            }
        };
        let services = async { tokio::try_join!(ingestor, aggregate).map(|_| ()) };
        // The trackers end at `stop`. The services may end earlier, or later.
        let track = async {
            join_all(self.trackers.iter().map(|tracker| tracker.clone().run(stop.clone()))).await;
            std::future::pending().await
        };
        tokio::select! {
            ended = services => ended,
            ended = track => ended,
        }
    }

    /// The statistics of the records that the ingestor has processed.
    pub fn ingested(&self) -> StatsSnapshot {
        self.ingestor.stats().snapshot()
    }

    /// Waits until each service has processed `records` records. The services must [run](Self::run) at the same time.
    pub async fn processed(&self, records: u64) {
        for stats in std::iter::once(self.ingestor.stats()).chain(self.aggregator.as_ref().map(Aggregator::stats)) {
            let mut now = stats.snapshot();
            while now.new + now.duplicates + now.conflicts + now.invalid < records {
                now = stats.changed(&now).await;
            }
        }
    }

    /// Sends the events of `model` with [`send`]. Calls `on_progress` with the number of events that were sent so far.
    ///
    /// # Errors
    /// An error if the model has a defect.
    pub async fn send(
        &self,
        model: &Arc<EventModel>,
        config: LoadConfig,
        stop: &CancellationToken,
        on_progress: impl Fn(u64),
    ) -> Result<Published, LoadError> {
        let stats = Arc::new(LoadStats::default());
        let (sent, mut received) = mpsc::channel(16);
        let sending = send(model.clone(), config, Arc::new(self.log.clone()), stats.clone(), sent, stop.clone());
        let follow = async {
            while received.recv().await.is_some() {
                on_progress(stats.events());
            }
            Ok(())
        };
        tokio::try_join!(sending, follow)?;
        let (events, duplicates, invalid) = (stats.events(), stats.duplicates(), stats.invalid());
        let records = events + duplicates + invalid;
        Ok(Published { records, events, duplicates, invalid, model: Some(model.clone()) })
    }

    /// Compares the stored events, the totals and the dead letters with `published`, and returns the differences. Call it
    /// after all records are [processed](Self::processed).
    ///
    /// # Errors
    /// An error if the model has a defect.
    pub async fn verify(&self, published: &Published) -> Result<Vec<Mismatch>, LoadError> {
        let mut mismatches = Vec::new();
        let (stored, ingested) = (self.events.len() as u64, self.ingested());
        if stored != published.events {
            mismatches.push(Mismatch::Events { sent: published.events, stored });
        }
        let found = ingested.duplicates + ingested.conflicts;
        if found != published.duplicates {
            mismatches.push(Mismatch::Duplicates { sent: published.duplicates, found });
        }
        let dead_letters = self.dead_letters.sent().len() as u64;
        if dead_letters != published.invalid {
            mismatches.push(Mismatch::Invalid { sent: published.invalid, dead_letters });
        }
        let sums = self.events.sum_by_day();
        if sums != self.totals.days() {
            mismatches.push(Mismatch::TotalsOfStored);
        }
        if let Some(model) = &published.model {
            let (wrong, expected) = self.compare_with(model, published.events).await?;
            if wrong > 0 {
                mismatches.push(Mismatch::Copies { events: wrong });
            }
            if expected != sums {
                mismatches.push(Mismatch::TotalsOfSent);
            }
        }
        Ok(mismatches)
    }

    /// Returns how many of the first `events` events of `model` are not stored exactly once, and the expected totals of all
    /// these events.
    async fn compare_with(
        &self,
        model: &EventModel,
        events: u64,
    ) -> Result<(u64, BTreeMap<(Day, EventType), Totals>), LoadError> {
        let mut expected = BTreeMap::<_, Totals>::new();
        let mut wrong = 0;
        for number in 0..events {
            let event = [model.event(number)?];
            let contribution = Contribution::of(&event[0]);
            *expected.entry((contribution.identity.day, contribution.event_type)).or_default() += &contribution;
            wrong += self.events.count_copies(&event).await?.into_iter().filter(|count| *count != 1).count() as u64;
        }
        Ok((wrong, expected))
    }
}

/// The numbers of records in a log.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Published {
    /// The number of all records.
    pub records: u64,
    /// The number of distinct events.
    pub events: u64,
    /// The number of valid records that repeat an event.
    pub duplicates: u64,
    /// The number of records without a valid event.
    pub invalid: u64,
    /// The model of the events, if a model made them.
    pub model: Option<Arc<EventModel>>,
}

/// A difference between the published records and the results of the services. Its text is a sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// The number of stored events differs from the number of sent events.
    Events {
        /// The number of distinct events that were sent.
        sent: u64,
        /// The number of stored events.
        stored: u64,
    },
    /// The number of duplicates that the ingestor has found differs from the number of sent duplicates.
    Duplicates {
        /// The number of duplicates that were sent.
        sent: u64,
        /// The number of duplicates and conflicts that the ingestor has found.
        found: u64,
    },
    /// The number of dead letters differs from the number of invalid records.
    Invalid {
        /// The number of invalid records that were sent.
        sent: u64,
        /// The number of dead letters.
        dead_letters: u64,
    },
    /// The totals are not the sums over the stored events.
    TotalsOfStored,
    /// Some events are not stored exactly once.
    Copies {
        /// The number of these events.
        events: u64,
    },
    /// The totals are not the sums over the sent events.
    TotalsOfSent,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events { sent, stored } => write!(f, "{sent} events were sent, and {stored} are stored"),
            Self::Duplicates { sent, found } => write!(f, "{sent} duplicates were sent, and {found} were found"),
            Self::Invalid { sent, dead_letters } => {
                write!(f, "{sent} invalid messages were sent, and there are {dead_letters} dead letters")
            }
            Self::TotalsOfStored => f.write_str("the totals are not the sums over the stored events"),
            Self::Copies { events } => write!(f, "{events} events are not stored exactly once"),
            Self::TotalsOfSent => f.write_str("the totals are not the sums over the sent events"),
        }
    }
}

//! Sends dead letters to the topic from which they came, each dead letter once.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Error, RecordPosition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::dlq_record::Replayable;
use super::replay_markers::{self, Replayed};
use crate::error::{self, KAFKA};
use crate::{ConfigError, KafkaConfig, KafkaTopics, TopicSpec, log, producer};

/// The maximum size of a batch, as for a publisher of events.
const BATCH_BYTES: usize = 1_000_000;
/// How long one step of a transaction may take.
const STEP: Duration = Duration::from_secs(30);
/// How long to wait before the next attempt if the producer's queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(5);

/// Sends dead letters again, and records which dead letters were sent.
///
/// Dead letters and their markers are written in one transaction. So each dead letter is sent once, whatever process dies
/// in between. With the markers that [`begin`](Self::begin) returns, the next replay continues where this replay ended.
/// Only one replay of a dead-letter topic can run at a time: a newer replay takes over.
pub struct KafkaReplay {
    session: Arc<Session>,
    topics: KafkaTopics,
    config: KafkaConfig,
    dlq_topic: String,
}

impl KafkaReplay {
    /// A replay of dead letters in `dlq_topic` to `topic`. It connects by itself.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub fn new(config: &KafkaConfig, topic: &str, dlq_topic: &str) -> Result<Self, ConfigError> {
        let id = format!("netagg-replay-{dlq_topic}");
        let producer = config.transactional_producer(&id, BATCH_BYTES).create_with_context(Context::default())?;
        let session = Session {
            producer,
            brokers: config.brokers().to_owned(),
            topic: topic.to_owned(),
            markers: replay_markers::topic(dlq_topic),
        };
        Ok(Self {
            session: Arc::new(session),
            topics: KafkaTopics::new(config)?,
            config: config.clone(),
            dlq_topic: dlq_topic.to_owned(),
        })
    }

    /// Takes over from any other replay of the topic. Returns the dead letters that all replays have sent so far. Call this
    /// once.
    ///
    /// # Errors
    /// Retryable while the broker is unavailable or refuses access.
    pub async fn begin(&self) -> Result<Replayed, Error> {
        // Create the topic only if it is missing: a user who may write to it may not be allowed to create it.
        if !self.topics.list().await?.iter().any(|topic| topic.name == self.session.markers) {
            self.topics.create(&TopicSpec::markers(&self.session.markers)).await?;
        }
        // Do this before reading: afterwards, the other replay cannot commit its open transaction any more.
        self.blocking(|session| session.producer.init_transactions(STEP)).await?;
        Replayed::read(&self.config, &self.dlq_topic).await
    }

    /// Sends `dead_letters` and records them as sent: all of them, or none if the call fails or the process ends. Fails
    /// before [`begin`](Self::begin).
    ///
    /// # Errors
    /// When another replay has taken over, the broker is unavailable, or the topic rejects one of the dead letters.
    pub async fn send(&self, dead_letters: Vec<Replayable>) -> Result<(), Error> {
        self.blocking(move |session| session.send(&dead_letters)).await
    }

    async fn blocking(&self, step: impl FnOnce(&Session) -> KafkaResult<()> + Send + 'static) -> Result<(), Error> {
        let session = Arc::clone(&self.session);
        let done = tokio::task::spawn_blocking(move || step(&session).map_err(|error| session.explain(error)));
        done.await.map_err(|error| Error::internal(KAFKA, error))?
    }
}

impl fmt::Debug for KafkaReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReplay").field("dlq_topic", &self.dlq_topic).finish_non_exhaustive()
    }
}

/// The producer, whose calls block.
struct Session {
    producer: ThreadedProducer<Context>,
    brokers: String,
    topic: String,
    markers: String,
}

impl Session {
    fn send(&self, dead_letters: &[Replayable]) -> KafkaResult<()> {
        self.producer.begin_transaction()?;
        let sent = dead_letters.iter().try_for_each(|dead_letter| self.enqueue(dead_letter));
        let committed = sent.and_then(|()| self.producer.commit_transaction(STEP));
        if committed.is_err() {
            // If this fails, the next replay aborts the transaction, or the broker does so after the transaction timeout.
            let _ = self.producer.abort_transaction(STEP);
        }
        committed
    }

    fn enqueue(&self, dead_letter: &Replayable) -> KafkaResult<()> {
        let Replayable { dead_letter: position, source, record } = dead_letter;
        let (key, at) = (source.to_string(), SystemClock.now().to_string());
        let marker = BaseRecord::<str, str, _>::with_opaque_to(&self.markers, Box::new(position.clone()));
        self.offer(BaseRecord {
            topic: &self.topic,
            partition: None,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: None,
            headers: producer::headers(record),
            delivery_opaque: Box::new(position.clone()),
        })?;
        self.offer(marker.key(&key).payload(&at))
    }

    fn offer<K: rdkafka::message::ToBytes + ?Sized, P: rdkafka::message::ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, P, Box<RecordPosition>>,
    ) -> KafkaResult<()> {
        let begun = Instant::now();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned))
                    if begun.elapsed() < STEP =>
                {
                    record = returned;
                    std::thread::sleep(QUEUE_FULL);
                }
                Err((error, returned)) => {
                    self.producer.context().failed(*returned.delivery_opaque, error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// The error for a failed step. If a dead letter has failed, it is the reason for the failures after it.
    fn explain(&self, error: KafkaError) -> Error {
        const FENCED: [RDKafkaErrorCode; 3] =
            [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        if error.rdkafka_error_code().into_iter().chain(fatal).any(|code| FENCED.contains(&code)) {
            let reason = "another replay of these dead letters has taken over; the dead letters sent by this replay are recorded";
            return Error::internal(KAFKA, reason);
        }
        match self.producer.context().take_failure() {
            None => error::of(error, &self.brokers, &self.topic),
            Some((position, error)) => match error::of(error, &self.brokers, &self.topic) {
                Error::Refused { dependency, source } => {
                    let source =
                        format!("the dead letter {}:{}: {source}", position.partition.number, position.offset).into();
                    Error::Refused { dependency, source }
                }
                error => error,
            },
        }
    }
}

/// Keeps the first dead letter that was rejected, and the error.
#[derive(Default)]
struct Context(Mutex<Option<(RecordPosition, KafkaError)>>);

impl Context {
    fn failed(&self, dead_letter: RecordPosition, error: KafkaError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((dead_letter, error));
    }

    fn take_failure(&self) -> Option<(RecordPosition, KafkaError)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<RecordPosition>;

    fn delivery(&self, result: &DeliveryResult<'_>, dead_letter: Box<RecordPosition>) {
        const GIVEN_UP: [RDKafkaErrorCode; 2] = [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight];
        if let Err((error, _)) = result
            && !error.rdkafka_error_code().is_some_and(|code| GIVEN_UP.contains(&code))
        {
            self.failed(*dead_letter, error.clone());
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The step that fails returns an error to its caller.
        tracing::debug!(%error, reason, "kafka replay");
    }
}

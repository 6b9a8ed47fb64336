//! Sends dead letters to the topic they came from, each once.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Error, Place};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::replay_markers::{self, Replayed};
use super::stored_letter::Replayable;
use crate::error::{self, KAFKA};
use crate::{ConfigError, KafkaConfig, KafkaTopics, TopicSpec, log, producer};

/// As of an event's publisher.
const BATCH_BYTES: usize = 1_000_000;
/// How long one step of a transaction may take.
const STEP: Duration = Duration::from_secs(30);
/// How long to wait for room in the producer's queue before trying again.
const QUEUE_FULL: Duration = Duration::from_millis(5);

/// Sends dead letters again, and remembers which.
///
/// Letters and the marks of what was sent are written in one transaction, so that a letter is sent once whatever dies
/// on the way: with the marks that [`begin`](Self::begin) returns, the next replay goes on where this one ended. Only
/// one replay of a topic of dead letters can be at work; the newer one takes over.
pub struct KafkaReplay {
    session: Arc<Session>,
    topics: KafkaTopics,
    config: KafkaConfig,
    dlq_topic: String,
}

impl KafkaReplay {
    /// A replay of letters in `dlq_topic` to `topic`. It connects by itself.
    ///
    /// # Errors
    /// When librdkafka does not take the configuration.
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

    /// Takes over from any other replay of the topic, and returns what has been sent by all so far. To be called once.
    ///
    /// # Errors
    /// Retryable while the broker is away or refuses access.
    pub async fn begin(&self) -> Result<Replayed, Error> {
        // not everybody who may write there may make it
        if !self.topics.list().await?.iter().any(|topic| topic.name == self.session.markers) {
            self.topics.create(&TopicSpec::markers(&self.session.markers)).await?;
        }
        // first: what the other one has not committed by now never will be
        self.blocking(|session| session.producer.init_transactions(STEP)).await?;
        Replayed::read(&self.config, &self.dlq_topic).await
    }

    /// Sends `letters` and remembers them: all, or none if it fails or the process ends. Fails before
    /// [`begin`](Self::begin).
    ///
    /// # Errors
    /// When another replay has taken over, the broker is away, or the topic does not take one of the letters.
    pub async fn send(&self, letters: Vec<Replayable>) -> Result<(), Error> {
        self.blocking(move |session| session.send(&letters)).await
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
    fn send(&self, letters: &[Replayable]) -> KafkaResult<()> {
        self.producer.begin_transaction()?;
        let sent = letters.iter().try_for_each(|letter| self.enqueue(letter));
        let committed = sent.and_then(|()| self.producer.commit_transaction(STEP));
        if committed.is_err() {
            // else the next replay does, or the broker when the transaction's time is over
            let _ = self.producer.abort_transaction(STEP);
        }
        committed
    }

    fn enqueue(&self, letter: &Replayable) -> KafkaResult<()> {
        let Replayable { letter: place, source, record } = letter;
        let (key, at) = (source.to_string(), SystemClock.now().to_string());
        let marker = BaseRecord::<str, str, _>::with_opaque_to(&self.markers, Box::new(place.clone()));
        self.offer(BaseRecord {
            topic: &self.topic,
            partition: None,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: None,
            headers: producer::headers(record),
            delivery_opaque: Box::new(place.clone()),
        })?;
        self.offer(marker.key(&key).payload(&at))
    }

    fn offer<K: rdkafka::message::ToBytes + ?Sized, P: rdkafka::message::ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, P, Box<Place>>,
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

    /// What the failure of a step means: a letter that failed is the reason for what followed.
    fn explain(&self, error: KafkaError) -> Error {
        const FENCED: [RDKafkaErrorCode; 3] =
            [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        if error.rdkafka_error_code().into_iter().chain(fatal).any(|code| FENCED.contains(&code)) {
            let reason = "another replay of these dead letters has taken over; what this one has sent is remembered";
            return Error::internal(KAFKA, reason);
        }
        match self.producer.context().take_failure() {
            None => error::of(error, &self.brokers, &self.topic),
            Some((place, error)) => match error::of(error, &self.brokers, &self.topic) {
                Error::Refused { dependency, source } => {
                    let source = format!("the letter {}:{}: {source}", place.partition.number, place.offset).into();
                    Error::Refused { dependency, source }
                }
                error => error,
            },
        }
    }
}

/// Keeps the first letter that was not taken, and why.
#[derive(Default)]
struct Context(Mutex<Option<(Place, KafkaError)>>);

impl Context {
    fn failed(&self, letter: Place, error: KafkaError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((letter, error));
    }

    fn take_failure(&self) -> Option<(Place, KafkaError)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Place>;

    fn delivery(&self, result: &DeliveryResult<'_>, letter: Box<Place>) {
        const GIVEN_UP: [RDKafkaErrorCode; 2] = [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight];
        if let Err((error, _)) = result
            && !error.rdkafka_error_code().is_some_and(|code| GIVEN_UP.contains(&code))
        {
            self.failed(*letter, error.clone());
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // the step that fails tells its caller
        tracing::debug!(%error, reason, "kafka replay");
    }
}

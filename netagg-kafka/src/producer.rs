//! The producer that the publisher and the writer of dead letters use.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netagg_core::crash::{self, CrashPoint};
use netagg_core::{Error, OutgoingRecord};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{BaseProducer, FutureProducer, FutureRecord};

use crate::{ConfigError, error, log};

/// How long to wait before the next attempt if the queue is full, and none of its records belongs to this call.
const QUEUE_FULL: Duration = Duration::from_millis(5);

/// Appends records to one topic and waits until all replicas in sync have them.
pub(crate) struct Producer {
    topic: Arc<str>,
    config: ClientConfig,
    current: Mutex<Current>,
}

/// The producer in use.
#[derive(Default)]
struct Current {
    /// Created when the first record is sent: a producer that sends nothing takes 1 % of a core.
    producer: Option<FutureProducer<Context>>,
    /// How many producers there were before this producer.
    predecessors: u64,
}

/// A record that was not delivered.
#[derive(Debug)]
pub(crate) struct DeliveryError {
    /// The index of the record in the call.
    pub(crate) index: usize,
    pub(crate) error: KafkaError,
}

impl Producer {
    pub(crate) fn new(config: ClientConfig, topic: &str) -> Result<Self, ConfigError> {
        // Refuses properties that contradict each other.
        config.create::<BaseProducer>()?;
        Ok(Self { topic: topic.into(), config, current: Mutex::default() })
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// The port's error for `error`.
    pub(crate) fn explain(&self, error: KafkaError) -> Error {
        error::of(error, self.config.get("bootstrap.servers").unwrap_or_default(), &self.topic)
    }

    /// Returns once each record is durable or has failed. Records with equal keys stay in order.
    pub(crate) async fn send(&self, records: &[OutgoingRecord]) -> Vec<DeliveryError> {
        let (producer, predecessors) = match self.producer() {
            Ok(producer) => producer,
            Err(error) => {
                return (0..records.len()).map(|index| DeliveryError { index, error: error.clone() }).collect();
            }
        };
        let mut failures = Vec::new();
        let mut waiting = VecDeque::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let mut outgoing = self.outgoing(record);
            loop {
                match producer.send_result(outgoing) {
                    Ok(delivery) => {
                        waiting.push_back((index, delivery));
                        break;
                    }
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                        outgoing = returned;
                        match waiting.pop_front() {
                            Some((index, delivery)) => failures.extend(failure(index, delivery.await.ok())),
                            None => tokio::time::sleep(QUEUE_FULL).await,
                        }
                    }
                    Err((error, _)) => {
                        failures.push(DeliveryError { index, error });
                        break;
                    }
                }
            }
        }
        crash::pass(CrashPoint::DeadLettersInFlight);
        for (index, delivery) in waiting {
            failures.extend(failure(index, delivery.await.ok()));
        }
        let mut codes = failures.iter().filter_map(|failure| failure.error.rdkafka_error_code());
        if let Some(code) = codes.find(|code| is_end(*code)) {
            self.give_up(predecessors, code);
        }
        failures
    }

    fn outgoing<'a>(&'a self, record: &'a OutgoingRecord) -> FutureRecord<'a, [u8], [u8]> {
        FutureRecord {
            topic: &self.topic,
            partition: None,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: None,
            headers: headers(record),
        }
    }

    /// The producer in use, and how many producers there were before it.
    fn producer(&self) -> KafkaResult<(FutureProducer<Context>, u64)> {
        let mut current = self.current();
        let producer = match &current.producer {
            Some(producer) => producer.clone(),
            None => current.producer.insert(self.config.create_with_context(Context)?).clone(),
        };
        Ok((producer, current.predecessors))
    }

    /// Gives up the producer with this number of predecessors, unless another call has already done so.
    fn give_up(&self, predecessors: u64, code: RDKafkaErrorCode) {
        let mut current = self.current();
        if current.predecessors > predecessors {
            return;
        }
        // The callers report the failure.
        tracing::debug!(topic = &*self.topic, %code, "kafka producer given up; continuing with a new producer");
        *current = Current { producer: None, predecessors: predecessors + 1 };
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a producer may accept no more records after this failure, while a new producer does.
fn is_end(code: RDKafkaErrorCode) -> bool {
    match code {
        // An idempotent producer has lost track of its sequence: the topic was recreated, or a broker has lost data.
        RDKafkaErrorCode::Fatal => true,
        // The producer may have lost its brokers for good. This happens in librdkafka if a returning broker reports no brokers,
        // not even itself (https://github.com/confluentinc/librdkafka/issues/5301).
        RDKafkaErrorCode::MessageTimedOut => true,
        _ => false,
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The headers of `record` in the form of librdkafka.
pub(crate) fn headers(record: &OutgoingRecord) -> Option<OwnedHeaders> {
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    let insert = |headers: OwnedHeaders, header: &netagg_core::Header| {
        headers.insert(Header { key: &header.name, value: header.value.as_deref() })
    };
    (!record.headers.is_empty()).then(|| record.headers.iter().fold(empty, insert))
}

fn failure(index: usize, delivered: Option<OwnedDeliveryResult>) -> Option<DeliveryError> {
    match delivered {
        Some(Ok(_)) => None,
        Some(Err((error, _))) => Some(DeliveryError { index, error }),
        // Another call has replaced the producer.
        None => Some(DeliveryError { index, error: KafkaError::Canceled }),
    }
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The callers get an error for each record that cannot be sent.
        tracing::debug!(%error, reason, "kafka producer");
    }
}

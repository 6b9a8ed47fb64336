//! The producer under the publisher and the dead letters.

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

/// How long to wait for room in the queue when none of the waiting records is this call's own.
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
    /// Made when the first record is sent: a producer that sends nothing takes 1 % of a core.
    producer: Option<FutureProducer<Context>>,
    /// How many there were before it.
    predecessors: u64,
}

/// A record that was not taken.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Which one of the call's records.
    pub(crate) index: usize,
    pub(crate) error: KafkaError,
}

impl Producer {
    pub(crate) fn new(config: ClientConfig, topic: &str) -> Result<Self, ConfigError> {
        // Refuses properties that contradict each other.
        config.create::<BaseProducer>()?;
        Ok(Self { topic: topic.into(), config, current: Mutex::default() })
    }

    /// The port's error for a failure of it.
    pub(crate) fn explain(&self, error: KafkaError) -> Error {
        error::of(error, self.config.get("bootstrap.servers").unwrap_or_default(), &self.topic)
    }

    /// Returns once each record is durable or has failed. Those with equal keys stay in order.
    pub(crate) async fn send(&self, records: &[OutgoingRecord]) -> Vec<Failure> {
        let (producer, predecessors) = match self.producer() {
            Ok(producer) => producer,
            Err(error) => return (0..records.len()).map(|index| Failure { index, error: error.clone() }).collect(),
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
                        failures.push(Failure { index, error });
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

    /// The producer in use, and how many there were before it.
    fn producer(&self) -> KafkaResult<(FutureProducer<Context>, u64)> {
        let mut current = self.current();
        let producer = match &current.producer {
            Some(producer) => producer.clone(),
            None => current.producer.insert(self.config.create_with_context(Context)?).clone(),
        };
        Ok((producer, current.predecessors))
    }

    /// Gives up the producer that had so many before it, unless another call has done so.
    fn give_up(&self, predecessors: u64, code: RDKafkaErrorCode) {
        let mut current = self.current();
        if current.predecessors > predecessors {
            return;
        }
        // Its callers tell of the failure.
        tracing::debug!(topic = &*self.topic, %code, "kafka producer given up; going on with a new one");
        *current = Current { producer: None, predecessors: predecessors + 1 };
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a producer that fails so may take nothing more, while its successor does.
fn is_end(code: RDKafkaErrorCode) -> bool {
    match code {
        // An idempotent producer has lost track of its sequence: a topic made anew, a broker that lost data.
        RDKafkaErrorCode::Fatal => true,
        // It may have forgotten its brokers for good: librdkafka does if one that comes back tells of none, itself
        // included (https://github.com/confluentinc/librdkafka/issues/5301).
        RDKafkaErrorCode::MessageTimedOut => true,
        _ => false,
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The headers of `record` as librdkafka takes them.
pub(crate) fn headers(record: &OutgoingRecord) -> Option<OwnedHeaders> {
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    let insert = |headers: OwnedHeaders, header: &netagg_core::Header| {
        headers.insert(Header { key: &header.name, value: header.value.as_deref() })
    };
    (!record.headers.is_empty()).then(|| record.headers.iter().fold(empty, insert))
}

fn failure(index: usize, delivered: Option<OwnedDeliveryResult>) -> Option<Failure> {
    match delivered {
        Some(Ok(_)) => None,
        Some(Err((error, _))) => Some(Failure { index, error }),
        // a producer that was replaced by another call
        None => Some(Failure { index, error: KafkaError::Canceled }),
    }
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // the records that cannot be sent tell their callers
        tracing::debug!(%error, reason, "kafka producer");
    }
}

//! The producer under the publisher and the dead letters.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netagg_core::OutgoingRecord;
use netagg_core::crash::{self, CrashPoint};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::{ConfigError, log};

/// How long to wait for room in the queue when none of the waiting records is this call's own.
const QUEUE_FULL: Duration = Duration::from_millis(5);

/// Appends records to one topic and waits until all replicas in sync have them.
pub(crate) struct Producer {
    topic: Arc<str>,
    config: ClientConfig,
    current: Mutex<FutureProducer<Context>>,
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
        let current = Mutex::new(config.create_with_context(Context)?);
        Ok(Self { topic: topic.into(), config, current })
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns once each record is durable or has failed. Those with equal keys stay in order.
    pub(crate) async fn send(&self, records: &[OutgoingRecord]) -> Vec<Failure> {
        let producer = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
        if failures.iter().any(|failure| failure.error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)) {
            self.start_afresh();
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

    /// An idempotent producer that has lost track of its sequence (a topic made anew, a broker that lost data) takes
    /// nothing more; its successor does.
    fn start_afresh(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match self.config.create_with_context(Context) {
            Ok(producer) => {
                tracing::warn!(topic = &*self.topic, "kafka producer ended by a fatal error; going on with a new one");
                *current = producer;
            }
            Err(error) => tracing::error!(%error, "kafka producer ended by a fatal error, and no new one can be made"),
        }
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

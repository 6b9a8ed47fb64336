//! Translates Kafka's errors for the callers of ports.

use netagg_core::Error;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The name of this dependency in errors.
pub(crate) const KAFKA: &str = "kafka";

/// The port's error for `error`, which happened during work on `topic` of `brokers`.
pub(crate) fn of(error: KafkaError, brokers: &str, topic: &str) -> Error {
    let code = error.rdkafka_error_code();
    let error = Failed { brokers: brokers.to_owned(), error };
    match code {
        Some(code) if is_missing_topic(code) => {
            let reason = missing_topic(brokers, topic);
            Error::NotSetUp { dependency: KAFKA, reason, source: Some(error.into()) }
        }
        Some(code) if is_refused_access(code) => {
            let reason = refused_access(code, brokers, topic);
            Error::NotSetUp { dependency: KAFKA, reason, source: Some(error.into()) }
        }
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::PolicyViolation,
        ) => Error::Refused { dependency: KAFKA, source: error.into() },
        Some(RDKafkaErrorCode::InvalidArgument | RDKafkaErrorCode::InvalidTopic) => Error::internal(KAFKA, error),
        // Most codes describe a state that passes.
        _ => Error::unavailable(KAFKA, error),
    }
}

/// An error of librdkafka, with the brokers.
#[derive(Debug, thiserror::Error)]
#[error("{error} (brokers {brokers})")]
struct Failed {
    brokers: String,
    #[source]
    error: KafkaError,
}

/// The error for brokers that have sent nothing for too long.
pub(crate) fn silence(brokers: &str) -> Error {
    of(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut), brokers, "")
}

pub(crate) fn is_missing_topic(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition
    )
}

pub(crate) fn missing_topic(brokers: &str, topic: &str) -> String {
    format!("the topic {topic} does not exist: create it (brokers {brokers})")
}

pub(crate) fn is_refused_access(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    )
}

pub(crate) fn refused_access(code: RDKafkaErrorCode, brokers: &str, topic: &str) -> String {
    format!(
        "the broker refuses access ({code}); check the login, the certificates and the rights on the topic {topic} \
         (brokers {brokers})"
    )
}

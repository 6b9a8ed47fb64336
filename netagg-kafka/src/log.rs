//! librdkafka's own log lines.

use rdkafka::config::RDKafkaLogLevel;

/// Forwards a log line: warnings as warnings, but connection errors only for debugging. Connection errors come with every
/// attempt to reconnect, and a [`KafkaHealth`](crate::KafkaHealth) or a failing call reports them.
pub(crate) fn forward(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let ignored_on_purpose = facility == "CONFWARN" && message.contains("will be ignored by this");
    let connection = matches!(facility, "FAIL" | "ERROR");
    match level {
        _ if ignored_on_purpose || connection => tracing::debug!(target: "librdkafka", facility, message),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, message);
        }
        _ => tracing::warn!(target: "librdkafka", facility, message),
    }
}

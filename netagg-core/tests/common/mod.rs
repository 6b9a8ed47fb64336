//! Helpers that the tests of the services share.
#![allow(dead_code, reason = "each test binary uses some of the helpers")]

use std::time::Duration;

use netagg_core::memory::MemoryLog;
use netagg_core::{PartitionId, Record, Timestamp};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// The JSON of a valid event of `user-1` with the `event_id` `id`, at noon of 2025-10-20.
pub(crate) fn json(id: u128) -> String {
    format!(
        r#"{{"event_id":"{}","source_id":"provider-1","user_id":"user-1","type":"DATA",
        "started_at":"2025-10-20T12:00:00Z","duration_sec":60,"bytes_up":{id},"bytes_down":1}}"#,
        uuid::Uuid::from_u128(id)
    )
}

/// A closed log with one partition, and with one record for each of these values.
pub(crate) fn log_of(values: impl IntoIterator<Item = String>) -> MemoryLog {
    let log = MemoryLog::new("events", 1);
    values.into_iter().for_each(|value| append(&log, value));
    log.close();
    log
}

/// Appends a record with this value and a timestamp of 2025-10-20.
pub(crate) fn append(log: &MemoryLog, value: String) {
    let timestamp: Timestamp = "2025-10-20T12:00:00Z".parse().expect("a time");
    log.append(Record::new(PartitionId::new("events", 0), 0, value).with_timestamp(timestamp));
}

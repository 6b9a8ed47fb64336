//! The headers of a dead letter: their names, and their values for one record.

use super::DeadLetter;
use crate::record::Header;

/// The names of the headers. Numbers are decimal ASCII.
impl DeadLetter {
    /// The prefix of the headers that netagg writes. Headers of the source record with this prefix are left out.
    pub const HEADER_PREFIX: &str = "netagg-";
    /// The [kind](crate::InvalidKind) of the error.
    pub const ERROR: &str = "netagg-error";
    /// The field, the value that was found, and the accepted values.
    pub const ERROR_DETAIL: &str = "netagg-error-detail";
    /// The topic of the source record.
    pub const SOURCE_TOPIC: &str = "netagg-source-topic";
    /// The partition of the source record.
    pub const SOURCE_PARTITION: &str = "netagg-source-partition";
    /// The offset of the source record.
    pub const SOURCE_OFFSET: &str = "netagg-source-offset";
    /// The timestamp of the source record in milliseconds since 1970; absent if the record had no timestamp.
    pub const SOURCE_TIMESTAMP: &str = "netagg-source-timestamp";
    /// The length of the value before it was cut to fit into the topic; absent if the value was not cut.
    pub const TRUNCATED: &str = "netagg-truncated";

    /// The headers of the dead letter: the headers of the source record, then the headers of netagg.
    pub fn headers(&self) -> Vec<Header> {
        let mut headers: Vec<Header> = self
            .record
            .headers
            .iter()
            .filter(|header| !header.name.starts_with(Self::HEADER_PREFIX))
            .cloned()
            .collect();
        let partition = &self.record.partition;
        headers.extend([
            Header::new(Self::ERROR, self.reason.kind().as_str()),
            Header::new(Self::ERROR_DETAIL, self.reason.to_string()),
            Header::new(Self::SOURCE_TOPIC, partition.topic.to_string()),
            Header::new(Self::SOURCE_PARTITION, partition.number.to_string()),
            Header::new(Self::SOURCE_OFFSET, self.record.offset.to_string()),
        ]);
        if let Some(at) = self.record.timestamp {
            headers.push(Header::new(Self::SOURCE_TIMESTAMP, at.as_millis().to_string()));
        }
        headers
    }
}

//! The markers of replayed dead letters, in a small compacted topic beside the dead-letter topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netagg_core::{Error, PartitionId, Record, RecordPosition};

use crate::KafkaConfig;
use crate::bounded_reader::BoundedReader;
use crate::error::KAFKA;

/// The source positions of the dead letters that have been sent again.
///
/// The key of a marker is this position, `topic/partition/offset`, so that copies of one dead letter have one marker. Its
/// value is the time of the replay, for operators. A marker with a null value revokes the earlier marker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed(BTreeMap<Arc<str>, BTreeSet<(i32, i64)>>);

impl Replayed {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the markers of the dead-letter topic `dlq_topic`. Returns an empty set if no replay of this topic has begun yet.
    ///
    /// # Errors
    /// While the broker is unavailable.
    pub async fn read(config: &KafkaConfig, dlq_topic: &str) -> Result<Self, Error> {
        let Some(reader) = BoundedReader::open(config, &topic(dlq_topic)).await? else { return Ok(Self::new()) };
        let reading = tokio::task::spawn_blocking(move || {
            let mut replayed = Self::new();
            reader.read(|marker| {
                replayed.apply(&marker);
                true
            })?;
            Ok(replayed)
        });
        reading.await.map_err(|error| Error::internal(KAFKA, error))?
    }

    /// Whether the dead letter of the record at `source` has been sent again.
    pub fn contains(&self, source: &RecordPosition) -> bool {
        let positions = self.0.get(&source.partition.topic);
        positions.is_some_and(|positions| positions.contains(&(source.partition.number, source.offset)))
    }

    /// Adds the dead letter of the record at `source`. Returns `false` if the set already has it.
    pub fn insert(&mut self, source: &RecordPosition) -> bool {
        let RecordPosition { partition, offset } = source;
        self.0.entry(Arc::clone(&partition.topic)).or_default().insert((partition.number, *offset))
    }

    fn apply(&mut self, marker: &Record) {
        let Some(source) = marker.key.as_deref().and_then(position) else { return };
        if marker.value.is_some() {
            self.insert(&source);
        } else if let Some(positions) = self.0.get_mut(&source.partition.topic) {
            positions.remove(&(source.partition.number, source.offset));
        }
    }
}

/// The name of the topic with the markers of the dead-letter topic `dlq_topic`.
pub fn topic(dlq_topic: &str) -> String {
    format!("{dlq_topic}.replayed")
}

/// The position in the key of a marker.
fn position(key: &[u8]) -> Option<RecordPosition> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/');
    let (topic, number, offset) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then(|| RecordPosition { partition: PartitionId::new(topic, number), offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn marker(key: &str, value: Option<&str>) -> Record {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Record {
            partition: PartitionId::new("events.dlq.replayed", 0),
            offset: 0,
            timestamp: None,
            key: Some(bytes(key)),
            value: value.map(bytes),
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_last_marker_of_a_position_counts() {
        let source = |topic: &str| RecordPosition { partition: PartitionId::new(topic, 2), offset: 30 };
        let mut replayed = Replayed::new();
        for key in ["events/2/30", "nonsense", "events/2/30/4", "other/2"] {
            replayed.apply(&marker(key, Some("now")));
        }
        assert!(replayed.contains(&source("events")) && !replayed.contains(&source("other")));
        assert!(!replayed.insert(&source("events")));
        assert!(replayed.insert(&source("other")));
        replayed.apply(&marker(&source("events").to_string(), None));
        assert!(!replayed.contains(&source("events")) && replayed.contains(&source("other")));
    }
}

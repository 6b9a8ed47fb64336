//! What has been replayed, kept in a small compacted topic beside the one of dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netagg_core::{Error, PartitionId, Place, Record};

use crate::KafkaConfig;
use crate::bounded_reader::BoundedReader;
use crate::error::KAFKA;

/// The source places of the dead letters that have been sent again.
///
/// A marker's key is such a place, `topic/partition/offset`, so that copies of one letter have one marker. Its value is
/// the time of the replay, for people; a marker with a null value is one taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed(BTreeMap<Arc<str>, BTreeSet<(i32, i64)>>);

impl Replayed {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the markers of the topic of dead letters called `dlq_topic`; none if nothing of it was ever replayed.
    ///
    /// # Errors
    /// While the broker is away.
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

    /// Whether the letter of the record at `source` has been sent again.
    pub fn contains(&self, source: &Place) -> bool {
        let places = self.0.get(&source.partition.topic);
        places.is_some_and(|places| places.contains(&(source.partition.number, source.offset)))
    }

    /// Notes that the letter of the record at `source` is sent again; false if that was known.
    pub fn insert(&mut self, source: &Place) -> bool {
        let Place { partition, offset } = source;
        self.0.entry(Arc::clone(&partition.topic)).or_default().insert((partition.number, *offset))
    }

    fn apply(&mut self, marker: &Record) {
        let Some(source) = marker.key.as_deref().and_then(place) else { return };
        if marker.value.is_some() {
            self.insert(&source);
        } else if let Some(places) = self.0.get_mut(&source.partition.topic) {
            places.remove(&(source.partition.number, source.offset));
        }
    }
}

/// The topic of the markers of replays, beside the topic `dlq_topic` of dead letters.
pub fn topic(dlq_topic: &str) -> String {
    format!("{dlq_topic}.replayed")
}

/// The place that a marker's key names.
fn place(key: &[u8]) -> Option<Place> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/');
    let (topic, number, offset) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then(|| Place { partition: PartitionId::new(topic, number), offset })
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
    fn the_last_marker_of_a_place_counts() {
        let source = |topic: &str| Place { partition: PartitionId::new(topic, 2), offset: 30 };
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

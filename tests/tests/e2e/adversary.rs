//! A publisher of records that make exact totals difficult, within the contract for producers. The same seed gives the same
//! records.

use std::collections::HashSet;

use bytes::Bytes;
use chrono::{DateTime, Duration, SecondsFormat, Utc};
use netagg_core::OutgoingRecord;
use netagg_core::ports::EventPublisher;
use netagg_kafka::{KafkaConfig, KafkaPublisher};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

/// Publishes valid events of many days and months, and copies of them after few or many other records. Copies are on the same
/// or another partition, and some copies have other content in another month. Some records hold no event.
pub(super) struct Adversary {
    rng: StdRng,
    publisher: KafkaPublisher,
    now: DateTime<Utc>,
    /// The sent events in order, from which copies are made.
    sent: Vec<Sent>,
    identities: HashSet<(String, Uuid)>,
    records: i64,
    invalid: i64,
}

#[derive(Clone)]
struct Sent {
    source: String,
    id: Uuid,
    json: String,
    key: Bytes,
}

impl Adversary {
    pub(super) fn new(config: &KafkaConfig, topic: &str, seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            publisher: KafkaPublisher::new(config, topic).expect("a publisher"),
            now: Utc::now(),
            sent: Vec::new(),
            identities: HashSet::new(),
            records: 0,
            invalid: 0,
        }
    }

    /// Publishes `count` records.
    pub(super) async fn publish(&mut self, count: usize) {
        let records: Vec<OutgoingRecord> = (0..count).map(|_| self.record()).collect();
        self.records += count as i64;
        for chunk in records.chunks(500) {
            self.publisher.publish(chunk.to_vec()).await.expect("published");
        }
    }

    /// The number of published records.
    pub(super) fn records(&self) -> i64 {
        self.records
    }

    /// The number of distinct events, so the number of events that must be stored.
    pub(super) fn events(&self) -> i64 {
        self.identities.len() as i64
    }

    /// The number of records that hold no event.
    pub(super) fn invalid(&self) -> i64 {
        self.invalid
    }

    fn record(&mut self) -> OutgoingRecord {
        match self.rng.random_range(0..100) {
            0..5 => self.no_event(),
            5..15 if !self.sent.is_empty() => {
                let near = self.sent.len().saturating_sub(20);
                let copy = self.sent[self.rng.random_range(near..self.sent.len())].clone();
                self.copy(copy)
            }
            15..25 if !self.sent.is_empty() => {
                let copy = self.sent[self.rng.random_range(0..self.sent.len())].clone();
                self.copy(copy)
            }
            25..30 if !self.sent.is_empty() => {
                let original = self.sent[self.rng.random_range(0..self.sent.len())].clone();
                let json = self.event(&original.source, original.id);
                self.copy(Sent { json, ..original })
            }
            _ => {
                let source = format!("provider-{}", self.rng.random_range(0..5));
                let id = Uuid::from_u128(self.rng.random());
                let json = self.event(&source, id);
                let key = self.key();
                self.identities.insert((source.clone(), id));
                let sent = Sent { source, id, json, key };
                self.sent.push(sent.clone());
                outgoing(sent.key, sent.json)
            }
        }
    }

    /// A copy of a sent event, on the same or another partition.
    fn copy(&mut self, sent: Sent) -> OutgoingRecord {
        let key = if self.rng.random_bool(0.5) { self.key() } else { sent.key };
        outgoing(key, sent.json)
    }

    fn key(&mut self) -> Bytes {
        format!("user-{}", self.rng.random_range(0..40)).into()
    }

    /// A new event as JSON. Most events are of the last days, some are of any month of the last two years, and some are in the
    /// next hours.
    fn event(&mut self, source: &str, id: Uuid) -> String {
        let seconds = match self.rng.random_range(0..10) {
            0 => -self.rng.random_range(0..700 * 86_400),
            1 => self.rng.random_range(0..20 * 3_600),
            _ => -self.rng.random_range(0..3 * 86_400),
        };
        let started_at = (self.now + Duration::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true);
        let event_type = ["CALL_OUT", "CALL_IN", "SMS_SENT", "SMS_RECEIVED", "DATA"][self.rng.random_range(0..5)];
        let bytes: i64 = self.rng.random_range(0..i64::MAX);
        format!(
            r#"{{"event_id":"{id}","source_id":"{source}","user_id":"user-{}","type":"{event_type}","#,
            self.rng.random_range(0..40)
        ) + &format!(
            r#""started_at":"{started_at}","duration_sec":{},"bytes_up":{bytes},"bytes_down":{}}}"#,
            self.rng.random_range(0..3_600),
            bytes / 3
        )
    }

    fn no_event(&mut self) -> OutgoingRecord {
        self.invalid += 1;
        let key = self.key();
        let id = Uuid::from_u128(self.rng.random());
        let value = match self.rng.random_range(0..5) {
            0 => return OutgoingRecord { key: Some(key), value: None, headers: Vec::new() },
            1 => "{".to_owned(),
            2 => self.event("late", id).replace("202", "190"),
            3 => self.event("odd", id).replace("\"type\":\"", "\"type\":\"X"),
            _ => r#"{"event_id":"none"}"#.to_owned(),
        };
        outgoing(key, value)
    }
}

fn outgoing(key: Bytes, value: String) -> OutgoingRecord {
    OutgoingRecord::new(value).with_key(key)
}

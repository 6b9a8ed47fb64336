//! Tests both services with a custom decoder.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

mod common;

use std::sync::Arc;

use common::{json, log_of};
use netagg_core::memory::{MemoryAggregateStore, MemoryDeadLetters, MemoryEventStore};
use netagg_core::ports::EventDecoder;
use netagg_core::{Aggregator, Event, Ingestor, InvalidEvent, InvalidKind, Record};
use tokio_util::sync::CancellationToken;

/// Decodes JSON whose bytes are in reverse order.
#[derive(Debug)]
struct Backwards;

impl EventDecoder for Backwards {
    fn decode(&self, record: &Record) -> Result<Event, InvalidEvent> {
        let value = record.value.as_deref().unwrap_or_default();
        if value.first() != Some(&b'}') {
            return Err(InvalidEvent::custom("first byte", format!("{:?}", value.first()), "a closing brace"));
        }
        Event::decode(&value.iter().rev().copied().collect::<Vec<_>>())
    }
}

#[tokio::test]
async fn ingestor_and_aggregator_agree_with_a_custom_decoder_and_dead_letters_keep_the_bytes() {
    let backwards = |id| json(id).chars().rev().collect::<String>();
    let log = log_of([backwards(1), json(2), backwards(3), backwards(1), "}".to_owned(), backwards(4)]);
    let (events, dead_letters) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()));
    let totals = Arc::new(MemoryAggregateStore::new());
    let ingestor = Ingestor::new(events.clone(), dead_letters.clone()).with_decoder(Arc::new(Backwards));
    let aggregator = Aggregator::new(totals.clone()).with_decoder(Arc::new(Backwards));
    ingestor.run(&mut log.source("ingestor"), CancellationToken::new()).await.expect("the end");
    aggregator.run(&mut log.source("aggregator"), CancellationToken::new()).await.expect("the end");

    assert_eq!(events.len(), 3);
    assert_eq!(totals.days(), events.sum_by_day());
    let (stored, counted) = (ingestor.stats().snapshot(), aggregator.stats().snapshot());
    assert_eq!((stored.new, stored.duplicates, stored.invalid), (3, 1, 2));
    assert_eq!((counted.new, counted.duplicates, counted.invalid), (3, 1, 2));

    let dead_letters = dead_letters.sent();
    let of = |at: usize| (dead_letters[at].record.value.as_deref(), dead_letters[at].reason.kind());
    assert_eq!(of(0), (Some(json(2).as_bytes()), InvalidKind::Custom));
    assert_eq!(of(1), (Some(&b"}"[..]), InvalidKind::MalformedJson));
    assert_eq!(dead_letters[0].reason.to_string(), "first byte: found Some(123); accepted: a closing brace");
}

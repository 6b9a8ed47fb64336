//! Your own decoder: it reads call records in CSV instead of events in JSON. Ingestor and aggregator use the same decoder.
//! The dead letters keep invalid lines byte for byte.
//!
//! `cargo run -p netagg-examples --example decode_csv`

use std::sync::Arc;

use netagg_core::memory::{MemoryAggregateStore, MemoryDeadLetters, MemoryEventStore, MemoryLog};
use netagg_core::ports::{EventDecoder, EventPublisher};
use netagg_core::{
    Aggregator, BoxError, Event, EventFields, EventType, Ingestor, InvalidEvent, OutgoingRecord, Record, SourceId,
};
use tokio_util::sync::CancellationToken;

const COLUMNS: &str = "call id,caller,start,seconds";

/// A decoder for the calls of one switch. Each line is one call, with the columns [`COLUMNS`].
#[derive(Debug)]
struct CallRecords {
    switch: SourceId,
}

impl EventDecoder for CallRecords {
    fn decode(&self, record: &Record) -> Result<Event, InvalidEvent> {
        let line = record.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
        let line = line.ok_or_else(|| InvalidEvent::custom(None, "bytes that are not text", COLUMNS))?;
        let columns: Vec<&str> = line.split(',').collect();
        let [id, caller, start, seconds] = columns[..] else {
            return Err(InvalidEvent::custom(None, format!("{} columns", columns.len()), COLUMNS));
        };
        Event::new(EventFields {
            event_id: column("call id", id, "a UUID")?,
            source_id: self.switch.clone(),
            user_id: column("caller", caller, "1 to 64 characters")?,
            event_type: EventType::CallOut,
            started_at: column("start", start, "a time such as 2025-10-20T12:34:56Z")?,
            ended_at: None,
            duration_sec: Some(column("seconds", seconds, "a whole number of seconds")?),
            bytes_up: 0,
            bytes_down: 0,
            meta: None,
        })
    }
}

fn column<T: std::str::FromStr>(name: &'static str, text: &str, accepted: &'static str) -> Result<T, InvalidEvent> {
    text.parse().map_err(|_| InvalidEvent::custom(name, format!("{text:?}"), accepted))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let log = MemoryLog::new("calls.csv", 1);
    let now = netagg_core::ports::Clock::now(&netagg_core::ports::SystemClock);
    for line in [
        format!("550e8400-e29b-41d4-a716-446655440001,491701234567,{now},60"),
        format!("550e8400-e29b-41d4-a716-446655440002,491701234567,{now},30"),
        format!("550e8400-e29b-41d4-a716-446655440001,491701234567,{now},60"), // sent twice
        format!("550e8400-e29b-41d4-a716-446655440003,491701234567,{now},ten"),
    ] {
        log.publish(vec![OutgoingRecord::new(line)]).await?;
    }
    log.close();

    let decoder = Arc::new(CallRecords { switch: "switch-7".parse()? });
    let (events, dead_letters) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()));
    let totals = Arc::new(MemoryAggregateStore::new());
    let ingestor = Ingestor::new(events.clone(), dead_letters.clone()).with_decoder(decoder.clone());
    let aggregator = Aggregator::new(totals.clone()).with_decoder(decoder);
    ingestor.run(&mut log.source("ingestor"), CancellationToken::new()).await?;
    aggregator.run(&mut log.source("aggregator"), CancellationToken::new()).await?;

    for ((day, event_type), totals) in totals.days() {
        println!("{day} {event_type}: {} calls, {} s", totals.count_events, totals.sum_duration);
        assert_eq!((totals.count_events, totals.sum_duration), (2, 90));
    }
    assert_eq!(totals.days(), events.sum_by_day());
    for dead_letter in dead_letters.sent() {
        println!("dead letter {:?}: {}", dead_letter.record.value, dead_letter.reason);
        assert!(dead_letter.record.value.is_some_and(|value| value.ends_with(b",ten")));
        assert_eq!(dead_letter.reason.to_string(), r#"seconds: found "ten"; accepted: a whole number of seconds"#);
    }
    assert_eq!(dead_letters.sent().len(), 1);
    Ok(())
}

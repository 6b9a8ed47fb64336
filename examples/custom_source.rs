//! Your own source: the lines of a file or of standard input. Each line is one event. `StreamSource` makes a source from any
//! stream. A source with other needs implements `EventSource` itself, and `testkit::plain_source` tests it.
//!
//! ```text
//! cargo run -p netagg-examples --example custom_source -- events.ndjson
//! echo '{"event_id": 5}' | cargo run -p netagg-examples --example custom_source
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use futures::stream;
use netagg_core::memory::{MemoryDeadLetters, MemoryEventStore};
use netagg_core::{Ingestor, StreamSource};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(path) => ingest(&path, File::open(&path).map_err(|error| format!("{path}: {error}"))?).await,
        None => ingest("stdin", io::stdin()).await,
    }
}

async fn ingest(name: &str, input: impl Read + Send + 'static) -> Result<(), Box<dyn Error>> {
    // The offset of a record is the number of its line, from 0. Lines are bytes, because an invalid line may not be valid text.
    let mut source = StreamSource::of_values(name, stream::iter(BufReader::new(input).split(b'\n')));
    let (events, dead_letters) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()));
    Ingestor::new(events.clone(), dead_letters.clone()).run(&mut source, CancellationToken::new()).await?;

    for dead_letter in dead_letters.sent() {
        println!("{name}:{}: {}", dead_letter.record.offset + 1, dead_letter.reason);
    }
    for ((day, event_type), totals) in events.sum_by_day() {
        println!("{day} {event_type}: {} events, {} s", totals.count_events, totals.sum_duration);
    }
    // A source that continues after a restart must store these positions, so that the next process can read them.
    let done = source.committed().first().map_or(0, |position| position.next_offset);
    println!("{done} lines processed, {} events stored", events.len());
    Ok(())
}

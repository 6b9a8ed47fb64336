//! A source of your own: the lines of a file, or of standard input, one event each. `StreamSource` makes a source of any
//! stream; a source that has to do more implements `EventSource` itself, and `testkit::plain_source` tests it.
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
    // A record's offset is the number of its line, from 0. Lines are bytes, since an invalid line need not be text.
    let mut source = StreamSource::of_values(name, stream::iter(BufReader::new(input).split(b'\n')));
    let (events, letters) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()));
    Ingestor::new(events.clone(), letters.clone()).run(&mut source, CancellationToken::new()).await?;

    for letter in letters.letters() {
        println!("{name}:{}: {}", letter.record.offset + 1, letter.reason);
    }
    for ((day, event_type), totals) in events.sum_by_day() {
        println!("{day} {event_type}: {} events, {} s", totals.count_events, totals.sum_duration);
    }
    // A source that is to go on after a restart keeps these positions where the next process finds them.
    let done = source.committed().first().map_or(0, |position| position.next_offset);
    println!("{done} lines done, {} events stored", events.len());
    Ok(())
}

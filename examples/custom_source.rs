//! A source of your own: the lines of a file, or of standard input, one event each.
//!
//! ```text
//! cargo run -p netagg-examples --example custom_source -- events.ndjson
//! echo '{"event_id": 5}' | cargo run -p netagg-examples --example custom_source
//! ```

use std::error::Error;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Read};
use std::sync::Arc;

use async_trait::async_trait;
use netagg_core::memory::{MemoryDeadLetters, MemoryEventStore};
use netagg_core::ports::{Clock, EventSource, SourceEvent, SystemClock};
use netagg_core::{Ingestor, PartitionId, Position, Record};
use tokio_util::sync::CancellationToken;

/// One partition; a record's offset is the number of its line, from 0.
#[derive(Debug)]
struct LineSource<R> {
    lines: Lines<R>,
    partition: PartitionId,
    next_offset: i64,
    committed: i64,
}

impl<R: BufRead> LineSource<R> {
    /// Lines are read this many at a time.
    const CHUNK: usize = 1_000;

    fn new(name: &str, lines: R) -> Self {
        Self { lines: lines.lines(), partition: PartitionId::new(name, 0), next_offset: 0, committed: 0 }
    }

    fn record(&mut self, line: String) -> Record {
        let offset = self.next_offset;
        self.next_offset += 1;
        Record {
            partition: self.partition.clone(),
            offset,
            timestamp: Some(SystemClock.now().into()), // the event's age is judged by it
            key: None,
            value: Some(line.into()),
            headers: Vec::new(),
        }
    }
}

#[async_trait]
impl<R: BufRead + Send + Debug> EventSource for LineSource<R> {
    // Cancel safe, as the port demands: between taking a line and returning it nothing is awaited.
    async fn next(&mut self) -> Result<SourceEvent, netagg_core::Error> {
        let mut records = Vec::new();
        while records.len() < Self::CHUNK
            && let Some(line) = self.lines.next()
        {
            let line = line.map_err(|error| netagg_core::Error::internal("input", error))?;
            records.push(self.record(line));
        }
        Ok(if records.is_empty() { SourceEvent::End } else { SourceEvent::Records(records) })
    }

    // A source that is to go on after a restart would keep this on disk.
    async fn commit(&mut self, positions: &[Position]) -> Result<(), netagg_core::Error> {
        self.committed = positions.last().map_or(self.committed, |position| position.next_offset);
        Ok(())
    }

    async fn close(&mut self) -> Result<(), netagg_core::Error> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(path) => ingest(&path, File::open(&path).map_err(|error| format!("{path}: {error}"))?).await,
        None => ingest("stdin", io::stdin()).await,
    }
}

async fn ingest(name: &str, input: impl Read + Send + Debug) -> Result<(), Box<dyn Error>> {
    let mut source = LineSource::new(name, BufReader::new(input));
    let (events, letters) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryDeadLetters::new()));
    Ingestor::new(events.clone(), letters.clone()).run(&mut source, CancellationToken::new()).await?;

    for letter in letters.letters() {
        println!("{name}:{}: {}", letter.record.offset + 1, letter.reason);
    }
    for ((day, event_type), totals) in events.sum_by_day() {
        println!("{day} {event_type}: {} events, {} s", totals.count_events, totals.sum_duration);
    }
    println!("{} lines done, {} events stored", source.committed, events.len());
    Ok(())
}

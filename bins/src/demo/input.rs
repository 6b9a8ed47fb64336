//! Given events, one JSON object a line.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use netagg_core::memory::MemoryLog;
use netagg_core::ports::{Clock, EventPublisher, SystemClock};
use netagg_core::{EventLimits, OutgoingRecord, PartitionId, Record};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::Published;
use crate::Failure;

/// The longest line read; a longer one is no event, as a message of its size would not be.
const MAX_LINE: u64 = 1 << 20;
/// Events handed over at a time.
const BATCH: usize = 500;

/// Publishes the valid lines of the file at `path`.
pub(super) async fn publish_file(path: &Path, log: &MemoryLog) -> Result<Published, Failure> {
    let name = path.display().to_string();
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| Failure::Usage(format!("--input {name}: it cannot be read: {error}")))?;
    publish_lines(file, &name, log).await
}

/// Publishes each valid line as it stands, judged as if it were received now; names the others on stderr.
#[allow(clippy::print_stderr, reason = "the lines that are left out are for the person who gave them")]
pub(super) async fn publish_lines(
    reader: impl AsyncRead + Unpin,
    name: &str,
    log: &MemoryLog,
) -> Result<Published, Failure> {
    let mut reader = BufReader::new(reader);
    let mut seen = HashSet::new();
    let (mut records, mut left_out) = (0, 0_u64);
    let mut batch = Vec::new();
    for number in 1_u64.. {
        let line = next_line(&mut reader).await;
        let line = match line.map_err(|error| Failure::Failed(format!("{name}:{number}: {error}").into()))? {
            None => break,
            Some(Line::TooLong) => {
                left_out += 1;
                eprintln!("{name}:{number}: left out: too_long: a line of more than {MAX_LINE} bytes");
                continue;
            }
            Some(Line::Text(line)) if line.trim_ascii().is_empty() => continue,
            Some(Line::Text(line)) => Bytes::from(line),
        };
        let record = Record {
            partition: PartitionId::new("input", 0),
            offset: number as i64,
            timestamp: Some(SystemClock.now()),
            key: None,
            value: Some(line.clone()),
            headers: Vec::new(),
        };
        match EventLimits::default().admit(&record) {
            Ok(event) => {
                records += 1;
                seen.insert(event.key());
                let key = Some(Bytes::copy_from_slice(event.fields().user_id.as_str().as_bytes()));
                batch.push(OutgoingRecord { key, value: Some(line), headers: Vec::new() });
            }
            Err(reason) => {
                left_out += 1;
                eprintln!("{name}:{number}: left out: {}: {reason}", reason.kind());
            }
        }
        if batch.len() >= BATCH {
            log.publish(std::mem::take(&mut batch)).await?;
        }
    }
    log.publish(batch).await?;
    let events = seen.len() as u64;
    Ok(Published { records, events, duplicates: records - events, invalid: 0, left_out, model: None })
}

enum Line {
    Text(Vec<u8>),
    TooLong,
}

/// The next line without its end; `None` at the end of the input.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    // One byte more than allowed tells a line that is too long.
    let read = (&mut *reader).take(MAX_LINE + 1).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > MAX_LINE {
        skip_line(reader).await?;
        return Ok(Some(Line::TooLong));
    }
    Ok(Some(Line::Text(line)))
}

async fn skip_line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf().await?;
        let (skip, is_end) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(skip);
        if is_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"event_id":"550e8400-e29b-41d4-a716-446655440000","source_id":"s","user_id":"u","type":"DATA","started_at":"2026-01-01T00:00:00Z"}"#;

    #[tokio::test]
    async fn lines_are_published_and_bad_ones_left_out() {
        let log = MemoryLog::new("events", 1);
        let long = "x".repeat(MAX_LINE as usize + 5);
        let other = EVENT.replace("446655440000", "446655440001");
        let text = format!("{EVENT}\r\n\n{long}\nnot JSON\n{EVENT}\n{other}");
        let published = publish_lines(text.as_bytes(), "test", &log).await.expect("read");
        assert_eq!((published.records, published.events, published.duplicates), (3, 2, 1));
    }
}
